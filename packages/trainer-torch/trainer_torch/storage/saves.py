"""`Saves`: the checkpoint that is being saved, and the saves of a training that have failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trainer_torch.model.staging import Staging
from trainer_torch.storage.background import Work


@dataclass
class Save:
    """A checkpoint that is being saved.

    Attributes:
        step: Its step.
        epoch: The epoch at that step.
        path: Its path once it is complete.
        finite: Whether its weights are finite.
        written: When the main process began to save it, in seconds since 1970.
        best: The best checkpoint of the training once this one is complete.
        work: The work of this process for it, if any.
    """

    step: int
    epoch: float | None
    path: Path
    finite: bool
    written: float
    best: str | None
    work: Work | None = None


class FailedSave(NamedTuple):
    """A save that failed because of the disk.

    Attributes:
        step: The step of the checkpoint.
        path: Its path.
        number: The `errno` of the error.
        reason: The message of the operating system.
        free: The free space of the disk, in words.
    """

    step: int
    path: Path
    number: int
    reason: str
    free: str


@dataclass
class Saves:
    """The saves of a training.

    Attributes:
        current: The checkpoint that is being saved.
        failed: The saves that have failed.
        done: The number of checkpoints that are complete.
        newest: The time of the newest checkpoint, in seconds since 1970, once one is saved.
        staging: The memory that they are copied to with `save_async`.
        deletion: The work of this process on the checkpoints that were deleted last. Its result is
            what could not be deleted.
    """

    current: Save | None = None
    failed: list[FailedSave] = field(default_factory=list)
    done: int = 0
    newest: float | None = None
    staging: Staging = field(default_factory=Staging)
    deletion: Work | None = None

    @property
    def is_writing(self) -> bool:
        """Whether this process still works on the current save."""
        work = None if self.current is None else self.current.work
        return work is not None and not work.is_done
