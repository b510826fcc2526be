"""Helpers that online and offline tasks share."""

from __future__ import annotations

import os
import sys
from typing import Final

from callback_core.tracking import Point

OFFLINE_ID: Final = "offline-"
"""The prefix of offline task ids."""

_TASK_OF_AGENT: Final = ("CLEARML_TASK_ID", "TRAINS_TASK_ID")


def current_task_id() -> str | None:
    """Return the id of the task that the user opened or that an agent runs.

    This does not import ClearML.
    """
    task_class = getattr(sys.modules.get("clearml"), "Task", None)
    task = None if task_class is None else task_class.current_task()
    if task is not None:
        return str(task.id)
    return next((os.environ[name] for name in _TASK_OF_AGENT if os.environ.get(name)), None)


def title_and_series(point: Point, suffix: str) -> tuple[str, str]:
    """Return the plot and the curve of a point: `train/loss` is the curve `loss` in `train`.

    Args:
        point: The point.
        suffix: Appended to the plot's name.
    """
    title, _, series = point.name.partition("/")
    return title + suffix, series
