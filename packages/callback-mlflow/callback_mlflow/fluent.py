"""Letting `mlflow.log_metric`, `mlflow.active_run` and the like find the run of a training."""

from __future__ import annotations

import atexit
import sys
from threading import Lock
from typing import Any


def active_run() -> Any:
    """Return the run that the user has opened in this thread, without importing MLflow."""
    find = getattr(sys.modules.get("mlflow"), "active_run", None)
    return None if find is None else find()


def tracking_uri() -> str | None:
    """Return where the fluent API writes to; `None` where nobody has imported MLflow."""
    find = getattr(sys.modules.get("mlflow"), "get_tracking_uri", None)
    return None if find is None else str(find())


class ThreadOfTraining:
    """The training's thread, in which a run that another thread has opened is the active one.

    MLflow's fluent API looks for a run in a list that each thread has of its own. What opens the
    run is handed the training's list and puts the run there. It has to be taken off again: it
    would be in the way of the next run, and MLflow would end it when the interpreter exits.
    """

    def __init__(self) -> None:
        self._runs: list[Any] | None = None
        self._shown: tuple[list[Any], Any] | None = None
        self._lock = Lock()

    def enter(self) -> None:
        """Be told, in the training's thread, that this is it."""
        # There is no public way to another thread's list. Versions differ in what it is kept in.
        kept: Any = getattr(sys.modules.get("mlflow.tracking.fluent"), "_active_run_stack", None)
        runs = kept.get() if hasattr(kept, "get") else kept
        self._runs = runs if isinstance(runs, list) else None

    def show(self, run: Any) -> None:
        """Make `run`, an `mlflow.ActiveRun`, the active one, unless the user has opened one."""
        with self._lock:
            if self._runs is not None and not self._runs:
                self._runs.append(run)
                self._shown = (self._runs, run)
                atexit.register(self.leave)  # before MLflow's own, which would end the run

    def hide(self) -> None:
        """Take the run off again, if it is still there."""
        with self._lock:
            if self._shown is not None:
                runs, shown = self._shown
                self._shown = None
                atexit.unregister(self.leave)
                for index, run in enumerate(runs):
                    if run is shown:
                        del runs[index]
                        break

    def leave(self) -> None:
        """Take the run off, and let none be put there any more."""
        self._runs = None
        self.hide()
