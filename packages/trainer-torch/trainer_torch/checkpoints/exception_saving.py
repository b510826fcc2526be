"""Saves a checkpoint when an error ends a training, with `save_on_exception`."""

from __future__ import annotations

import logging
from typing import Final

from trainer_torch.checkpoints.checkpoint_saving import (
    begin_save,
    finish_interrupted_save,
    finish_save,
)
from trainer_torch.ranks.hang_error import HangError
from trainer_torch.run.training_run import TrainingRun

logger = logging.getLogger(__name__)

PATIENCE: Final = 30.0
"""The seconds for which a process waits for the others to fail too."""


def save_after(run: TrainingRun, exception: BaseException) -> None:
    """Finish the save that has begun, and with `save_on_exception` save the last state too.

    That is the state after the last update. If `exception` comes from within an update, it is lost.
    With several processes, all must have failed at the same step, because a checkpoint needs all of
    them. If saving fails, that is logged, and does not mask `exception`.
    """
    is_due = (
        run.args.save_on_exception
        and isinstance(exception, Exception)
        and not isinstance(exception, HangError)  # the others are lost
        and run.last_save_step != run.state.global_step
    )
    # After that decision, because this may note the save in some processes only.
    finish_interrupted_save(run)
    if not is_due:
        return
    try:
        if not run.world.all_arrive(PATIENCE):
            _refuse(run, f"not all processes have failed within {PATIENCE:.0f} seconds")
            return
        places = run.world.gather((run.state.global_step, run.boundary is not None))
        if len(set(places)) > 1:
            _refuse(run, "the processes have not failed at the same step")
        elif run.boundary is None:
            _refuse(run, "the error comes from within an update, or before the first one")
        else:
            states = run.boundary.restore(run)
            begin_save(run, states)
            finish_save(run)
    except Exception:
        logger.exception(
            "save_on_exception could not save a checkpoint after the error that ends the training. "
            "Resume from an older checkpoint."
        )


def _refuse(run: TrainingRun, why: str) -> None:
    if run.world.is_main:
        logger.warning(
            "save_on_exception saves no checkpoint, because %s. Resume from an older one.", why
        )
