"""Notes, and warns of, saves that fail because of the disk or that take long."""

from __future__ import annotations

import errno
import logging
import os
from typing import Final

from trainer_torch.checkpoints.selection import make_room
from trainer_torch.hardware.disk import NO_SPACE, failure_of_disk, free_space
from trainer_torch.messages import listed
from trainer_torch.run.training_run import TrainingRun
from trainer_torch.storage.saves import FailedSave, Save

logger = logging.getLogger(__name__)

_PATIENCE: Final = 120.0
"""The seconds after which a warning says that a save has not ended."""


def failure_of(save: Save) -> FailedSave | None:
    """Return the failure of this process's disk during `save`, or `None` if there was none."""
    error = None if save.work is None else save.work.error
    failure = None if error is None else failure_of_disk(error)
    if failure is None:
        return None
    number = failure.errno or errno.EIO
    free = free_space(save.path.parent)
    return FailedSave(save.step, save.path, number, os.strerror(number), free)


def note_failure(run: TrainingRun, failed: FailedSave) -> None:
    """Warn, once for each reason, that a save has failed, and make room for the next one."""
    run.saves.failed.append(failed)
    run.warn_once(
        f"The checkpoint of step {failed.step} could not be saved to {failed.path.parent}: "
        f"{failed.reason}. Free space there: {failed.free}. Training continues without this "
        "checkpoint, and saves the next one when it is due. Until then, a training that is stopped "
        "resumes from an older one. Free some space, or repair the disk.",
        about=f"a save that failed with {failed.number}",
    )
    if failed.number in NO_SPACE:
        make_room(run)


def tell_failed_saves(run: TrainingRun) -> None:
    """Log at the end of a training which saves have failed, if any."""
    failed, done = run.saves.failed, run.saves.done
    if not failed or not run.world.is_main:
        return
    steps = listed(str(one.step) for one in failed)
    reasons = listed(dict.fromkeys(one.reason for one in failed))
    told = f"{len(failed)} of {len(failed) + done} checkpoints could not be saved: those of steps "
    told += f"{steps} ({reasons})."
    if run.saved_step is not None:
        logger.warning("%s The last complete checkpoint is that of step %d.", told, run.saved_step)
    else:
        logger.error(
            "%s No checkpoint of this training was saved, so the weights are only in memory. "
            "Save them now with trainer.save_model(directory), on a disk that works and has room.",
            told,
        )


def wait_for_writing(save: Save) -> None:
    """Wait until this process has done its part of `save`. Warn if that takes long."""
    if save.work is not None:
        save.work.wait(_PATIENCE, lambda: _tell_of_waiting(save))


def _tell_of_waiting(save: Save) -> None:
    logger.warning(
        "Training waits for the checkpoint of step %d, which is still being written to %s after "
        "%.0f seconds. Training continues when that ends. Check whether the disk is slow or "
        "hangs.",
        save.step,
        save.path.parent,
        _PATIENCE,
    )
