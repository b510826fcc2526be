"""A callback of somebody else's: keeps the lowest loss that was logged."""

from callback_core import TrainerCallback


class LossLog(TrainerCallback):
    """Keeps the lowest loss, in checkpoints too."""

    def __init__(self):
        self.lowest = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Take the loss, where there is one."""
        loss = (logs or {}).get("loss")
        if loss is not None and (self.lowest is None or loss < self.lowest):
            self.lowest = loss

    def state_dict(self):
        """Return the lowest loss so far."""
        return {"lowest": self.lowest}

    def load_state_dict(self, state):
        """Take over what `state_dict` returned."""
        self.lowest = state["lowest"]
