"""Makes the run of a training visible to `mlflow.log_metric`, `mlflow.active_run` and the like."""

from __future__ import annotations

import atexit
import logging
import sys
from threading import Lock
from typing import Any, Final

from callback_mlflow.settings import absolute_uri

logger = logging.getLogger(__name__)


_ASTRAY: Final[set[str]] = set()
"""The ids of runs that began during a training, which therefore belong to no other training."""


def active_run() -> Any:
    """Return the user's active run in this thread. This does not import MLflow.

    A run that began during an earlier training does not count: MLflow begins one by itself when a
    program logs without a run.
    """
    find = getattr(sys.modules.get("mlflow"), "active_run", None)
    run = None if find is None else find()
    return None if run is None or run.info.run_id in _ASTRAY else run


def experiment_id() -> str | None:
    """Return the id of the experiment that the program chose with `mlflow.set_experiment`."""
    # There is no public access to it. MLflow also sets a variable, but so may the user.
    fluent = sys.modules.get("mlflow.tracking.fluent")
    chosen: str | None = getattr(fluent, "_active_experiment_id", None)
    return chosen


def tracking_uri() -> str | None:
    """Return the absolute tracking URI of the fluent API; `None` if MLflow is not imported."""
    find = getattr(sys.modules.get("mlflow"), "get_tracking_uri", None)
    return None if find is None else absolute_uri(str(find()))


def remember(run_id: str) -> None:
    """Make `mlflow.last_active_run()` return this run in the current thread."""
    kept: Any = getattr(sys.modules.get("mlflow.tracking.fluent"), "_last_active_run_id", None)
    if hasattr(kept, "set"):  # there is no public access, and the container depends on the version
        kept.set(run_id)


class TrainingThread:
    """Makes a run that another thread opened the active run of the training's thread.

    MLflow's fluent API keeps a list of active runs for each thread. This class puts the run into
    the list of the training's thread. It must also remove it: otherwise the run would block the
    next one, and MLflow would end it when the interpreter exits.
    """

    def __init__(self) -> None:
        self._runs: list[Any] | None = None
        self._before: list[Any] = []
        self._shown: tuple[list[Any], Any] | None = None
        self._lock = Lock()

    def enter(self) -> None:
        """Note the list of the current thread. Call this in the training's thread."""
        self._runs = _runs_of_this_thread()
        self._before = list(self._runs or ())

    def show(self, run: Any, parent: str | None) -> None:
        """Make `run`, an `mlflow.ActiveRun`, the active one, unless the user opened another.

        Args:
            run: The run.
            parent: The id of the run inside which it was opened.
        """
        with self._lock:
            if self._runs is None:
                return
            if not self._runs or self._runs[-1].info.run_id in (parent, *_ASTRAY):
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
        """Remove the run, and show no further ones. Warn of other runs that began meanwhile."""
        self.hide()
        # If the program imported MLflow during the training, no run was active before.
        runs, self._runs = self._runs or _runs_of_this_thread() or [], None
        for run in runs:
            if run.info.run_id not in _ASTRAY and not any(run is one for one in self._before):
                _ASTRAY.add(run.info.run_id)
                logger.warning(
                    "MLflow run %s began during a training and is still active. It may hold what "
                    "the program logged before the training's own run was open. The next training "
                    "does not use it. mlflow.end_run() ends it.",
                    run.info.run_id,
                )


def _runs_of_this_thread() -> list[Any] | None:
    """Return MLflow's list of the active runs of this thread; `None` if MLflow is not imported."""
    # There is no public access to the list, and its container depends on the version.
    kept: Any = getattr(sys.modules.get("mlflow.tracking.fluent"), "_active_run_stack", None)
    runs = kept.get() if hasattr(kept, "get") else kept
    return runs if isinstance(runs, list) else None
