"""Finds the SDKs in this process that capture what a `SummaryWriter` writes."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any, Final

_WRITERS: Final = ("torch.utils.tensorboard.writer", "tensorboardX.writer")


def capture_warning(has_writer: bool, trackers: Collection[str]) -> str | None:
    """Return what to tell about an SDK that captures TensorBoard's writers; `None` if nothing.

    Args:
        has_writer: Whether the callback writes with a `SummaryWriter`. An SDK sees nothing else.
        trackers: The names of the trackers that record the training.
    """
    for tracker, what in _capturing().items():
        if has_writer and tracker in trackers:
            return (
                f"{what} captures the SummaryWriter, and the training is logged to {tracker} by "
                "its own callback too, so each point is there twice. Use one of the two."
            )
        if not has_writer and tracker not in trackers:
            return (
                f"{what} captures only what a SummaryWriter writes, so it sees nothing of this "
                "training. Pass TensorBoardCallback(SummaryWriter(...)), made after the SDK was "
                f"started, or use the callback of {tracker}."
            )
    return None


def _capturing() -> dict[str, str]:
    """Return the trackers whose SDK captures writers now, each with the name of what captures.

    This imports nothing. An SDK that was not imported captures nothing.
    """
    found = {}
    wandb: Any = sys.modules.get("wandb")
    if getattr(wandb, "run", None) is not None and getattr(wandb, "patched", {}).get("tensorboard"):
        found["wandb"] = "W&B's sync_tensorboard"
    task_class = getattr(sys.modules.get("clearml"), "Task", None)
    writers = (getattr(sys.modules.get(name), "FileWriter", None) for name in _WRITERS)
    marked = any(hasattr(writer, "clearml") for writer in writers)
    if marked and task_class is not None and task_class.current_task() is not None:
        found["clearml"] = "ClearML's task"
    return found
