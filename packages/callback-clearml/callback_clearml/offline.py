"""`OfflineTask`: a task that ClearML keeps in a folder, for a later import to a server."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from callback_clearml.sdk import title_and_series
from callback_core.tracking import Point, Status, Upload, summary_name

_FRAMEWORKS: Final = (
    *("catboost", "detect_repository", "fastai", "gradio", "hydra", "joblib", "lightgbm"),
    *("matplotlib", "megengine", "pytorch", "scikit", "tensorboard", "tensorflow", "tfdefines"),
    *("xgboost",),
)
"""What `Task.init` captures unless it is named: `torch.save`, for example, would keep models."""

_CAPTURE_NOTHING: Final = {
    "auto_connect_arg_parser": False,
    "auto_connect_frameworks": dict.fromkeys(_FRAMEWORKS, False),
    "auto_connect_streams": False,
    "auto_resource_monitoring": False,
}

_VARIABLES: Final = ("CLEARML_PROC_MASTER_ID", "TRAINS_PROC_MASTER_ID")
"""ClearML sets these to tell child processes which task they belong to."""


class OfflineTask:
    """A task in a folder. Opening it creates a new folder each time. It has no page, no `url`.

    Args:
        task_id: The user's task; `None` for a new one.
        project: The project of a new task.
        name: The name of a new task.

    Raises:
        RuntimeError: The user's task is closed.
    """

    url: None = None

    def __init__(self, task_id: str | None, project: str, name: str) -> None:
        task_class = import_module("clearml").Task
        self._saved: tuple[dict[str, str | None], Any] | None = None
        if task_id is None:
            self._saved = {name: os.environ.get(name) for name in _VARIABLES}, sys.exit
            with _without_seeding(task_class), _own_log_level("urllib3"):
                _disable_reporting_process()
                self._task = task_class.init(
                    project_name=project,
                    task_name=name,
                    reuse_last_task_id=False,
                    **_CAPTURE_NOTHING,
                )
        else:
            self._task = task_class.current_task()
            if self._task is None or self._task.id != task_id:
                raise RuntimeError(
                    f"ClearML task {task_id} is closed. An offline task cannot be reopened."
                )
        self.id = str(self._task.id)

    def parameters(self) -> dict[str, str]:
        """Return the values of the parameters that the task has, named `section/name`."""
        return {name: str(value) for name, value in (self._task.get_parameters() or {}).items()}

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set parameters named `section/name`. Other parameters stay."""
        self._task.update_parameters(dict(parameters))

    def log_metrics(self, points: Sequence[Point], suffix: str) -> None:
        """Add points, and wait until they are in the folder's file."""
        logger = self._task.get_logger()
        for point in points:
            title, series = title_and_series(point, suffix)
            logger.report_scalar(title, series, float(point.value), iteration=point.step)
        logger.flush(wait=True)

    def log_summary(self, points: Sequence[Point], suffix: str) -> None:
        """Set single values."""
        logger = self._task.get_logger()
        for point in points:
            logger.report_single_value(summary_name(point.name) + suffix, float(point.value))
        logger.flush(wait=True)

    def log_files(self, upload: Upload, name: str) -> None:
        """Copy a checkpoint to the folder as an artifact. ClearML has no offline models."""
        if not self._task.upload_artifact(name, upload.path, wait_on_upload=True):
            raise OSError(f"ClearML did not accept the artifact {name}")

    def close(self, status: Status | None) -> None:
        """Pack the folder; `None` leaves the task open. An offline task has no status."""
        if status is not None:
            self._task.close()
        if self._saved is not None:
            _restore(*self._saved)


def _restore(variables: Mapping[str, str | None], exit_function: Any) -> None:
    """Restore what a closed task leaves changed in this process."""
    sys.exit = exit_function
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _without_seeding(task_class: Any) -> Iterator[None]:
    """Keep ClearML from seeding the random generators in the middle of a training."""
    seed = getattr(task_class, "_random_seed", True)  # the class has no public getter
    task_class.set_random_seed(None)
    try:
        yield
    finally:
        task_class.set_random_seed(seed)


@contextmanager
def _own_log_level(name: str) -> Iterator[None]:
    """Keep the level of a logger of another library, which ClearML raises for its requests."""
    logger = logging.getLogger(name)
    level = logger.level
    try:
        yield
    finally:
        logger.setLevel(level)


def _disable_reporting_process() -> None:
    """Make ClearML report in threads, unless the user's settings choose.

    Its reporting process is a fork of the training process, and closing the task then takes
    seconds.
    """
    config = import_module("clearml.config")
    key = "development.report_use_subprocess"
    if config.config.get(key, None) is None:
        config.config_obj.set_overrides({"sdk": {"development": {"report_use_subprocess": False}}})
        config.ConfigSDKWrapper.clear_config_impl()
