"""`Boundary`: the state between two steps, kept so that an unfinished step can be undone."""

from __future__ import annotations

import copy
from typing import Any, Final

from torch import Tensor

from callback_core import export_states
from trainer_torch.hardware.seeding import rng_state, set_rng_state
from trainer_torch.run.divergence import copy_buffers, restore_buffers
from trainer_torch.run.training_run import TrainingRun

_POSITION_FIELDS: Final = ("epoch", "batches", "samples", "epoch_ended", "read_size")


class Boundary:
    """The state of a training after an update.

    The weights, the optimizer, the schedule and the running loss stay as they are until the next
    update. The generators, the buffers, the position in the data and the callbacks do not.

    Args:
        run: The training.
        is_complete: Whether everything after the update is done: logs, evaluations, checkpoints and
            events. If not, callbacks may still change, so their states are not kept.
    """

    def __init__(self, run: TrainingRun, is_complete: bool) -> None:
        self._generators = rng_state()
        self._at_epoch_begin = run.epoch_rng_state
        self._buffers: dict[str, Tensor] = copy_buffers(run.model)
        self._position = {name: getattr(run.position, name) for name in _POSITION_FIELDS}
        self._data_state = copy.deepcopy(run.position.data_state_dict())
        self._states: dict[str, Any] | None = None
        if is_complete:
            owners = [*run.callback_handler.callbacks, run.control]
            self._states = export_states(owners, run.state.stateful_callbacks)

    def restore(self, run: TrainingRun) -> dict[str, Any] | None:
        """Restore this in `run`. Return the states of callbacks, or `None` for the current ones."""
        set_rng_state(self._generators)
        run.epoch_rng_state = self._at_epoch_begin
        restore_buffers(run.model, self._buffers)
        vars(run.position).update(self._position)
        run.position.reading = self
        run.usage = None  # it has counted the step that will be repeated
        return self._states

    def state_dict(self, done: int) -> dict[str, Any] | None:
        """Return the state of the data, as `trainer_torch.data.reading.Reading` does."""
        return self._data_state


def note_boundary(run: TrainingRun, is_complete: bool) -> None:
    """Keep what `save_on_exception` needs, if it is set."""
    if run.args.save_on_exception:
        run.boundary = Boundary(run, is_complete)
