"""A callback by an outside author, which keeps the lowest loss."""

from callback_core import TrainerCallback


class LossLog(TrainerCallback):
    """Keeps the lowest loss, and saves it in checkpoints."""

    def __init__(self):
        self.lowest = None

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Update the lowest loss if the log has a loss."""
        loss = (logs or {}).get("loss")
        if loss is not None and (self.lowest is None or loss < self.lowest):
            self.lowest = loss

    def state_dict(self):
        """Return the lowest loss so far."""
        return {"lowest": self.lowest}

    def load_state_dict(self, state):
        """Restore the state that `state_dict` returned."""
        self.lowest = state["lowest"]
