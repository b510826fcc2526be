"""Makes the run of a training visible to `mlflow.log_metric`, `mlflow.active_run` and the like."""

from __future__ import annotations

import atexit
import sys
from threading import Lock
from typing import Any


def active_run() -> Any:
    """Return the user's active run in this thread. This does not import MLflow."""
    find = getattr(sys.modules.get("mlflow"), "active_run", None)
    return None if find is None else find()


def tracking_uri() -> str | None:
    """Return the tracking URI of the fluent API; `None` if MLflow is not imported."""
    find = getattr(sys.modules.get("mlflow"), "get_tracking_uri", None)
    return None if find is None else str(find())


class TrainingThread:
    """Makes a run that another thread opened the active run of the training's thread.

    MLflow's fluent API keeps a list of active runs for each thread. This class puts the run into
    the list of the training's thread. It must also remove it: otherwise the run would block the
    next one, and MLflow would end it when the interpreter exits.
    """

    def __init__(self) -> None:
        self._runs: list[Any] | None = None
        self._shown: tuple[list[Any], Any] | None = None
        self._lock = Lock()

    def enter(self) -> None:
        """Note the list of the current thread. Call this in the training's thread."""
        # There is no public access to another thread's list, and its container depends on the
        # version.
        kept: Any = getattr(sys.modules.get("mlflow.tracking.fluent"), "_active_run_stack", None)
        runs = kept.get() if hasattr(kept, "get") else kept
        self._runs = runs if isinstance(runs, list) else None

    def show(self, run: Any) -> None:
        """Make `run`, an `mlflow.ActiveRun`, the active one, unless the user opened one."""
        with self._lock:
            if self._runs is not None and not self._runs:
                self._runs.append(run)
                self._shown = (self._runs, run)
                atexit.register(self.leave)  # runs before MLflow's hook, which would end the run

    def hide(self) -> None:
        """Remove the run from the list, if it is still there."""
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
        """Remove the run, and show no further ones."""
        self._runs = None
        self.hide()
