"""`OfflineTask`: a task that ClearML keeps in a folder, to be imported to a server later."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from callback_clearml.sdk import title_and_series
from callback_core.tracking import Point, Status, Upload

_CAPTURE_NOTHING: Final = {
    "auto_connect_arg_parser": False,
    "auto_connect_frameworks": {"detect_repository": False},
    "auto_connect_streams": False,
    "auto_resource_monitoring": False,
}

_VARIABLES: Final = ("CLEARML_PROC_MASTER_ID", "TRAINS_PROC_MASTER_ID")
"""By which ClearML tells the processes that a script starts which task is theirs."""


class OfflineTask:
    """A task in a folder. Each time that one is opened makes a folder of its own.

    Args:
        task_id: The user's task; `None` for one of ours.
        project: The project of a new one.
        name: The name of a new one.

    Raises:
        RuntimeError: The user's task is open no longer.
    """

    def __init__(self, task_id: str | None, project: str, name: str) -> None:
        task_class = import_module("clearml").Task
        self._left: tuple[dict[str, str | None], Any] | None = None
        if task_id is None:
            self._left = {name: os.environ.get(name) for name in _VARIABLES}, sys.exit
            with _unseeded(task_class):
                _report_in_threads()
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
                    f"ClearML task {task_id} is closed, and offline it cannot be opened again."
                )
        self.id = str(self._task.id)

    def log_parameters(self, parameters: Mapping[str, Any], suffix: str) -> None:
        """Set parameters, whose names begin with their section; others stay."""
        sections = (name.partition("/") for name in parameters)
        names = [f"{section}{suffix}/{name}" for section, _, name in sections]
        self._task.update_parameters(dict(zip(names, parameters.values(), strict=True)))

    def log_metrics(self, points: Sequence[Point], suffix: str) -> None:
        """Add points, and have them in the folder's file before returning."""
        logger = self._task.get_logger()
        for point in points:
            title, series = title_and_series(point, suffix)
            logger.report_scalar(title, series, float(point.value), iteration=point.step)
        logger.flush(wait=True)

    def log_summary(self, points: Sequence[Point], suffix: str) -> None:
        """Set single values."""
        logger = self._task.get_logger()
        for point in points:
            logger.report_single_value(
                point.name.removeprefix("train/") + suffix, float(point.value)
            )
        logger.flush(wait=True)

    def log_files(self, upload: Upload, name: str) -> None:
        """Copy a checkpoint to the folder, as an artifact: ClearML has no models offline."""
        if not self._task.upload_artifact(name, upload.path, wait_on_upload=True):
            raise OSError(f"ClearML has not taken {name}")

    def close(self, status: Status | None) -> None:
        """Pack the folder; `None` leaves the task open. ClearML keeps no status there."""
        if status is not None:
            self._task.close()
        if self._left is not None:
            _put_back(*self._left)


def _put_back(variables: Mapping[str, str | None], leave: Any) -> None:
    """Put back what closing a task leaves changed in this process."""
    sys.exit = leave
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _unseeded(task_class: Any) -> Iterator[None]:
    """Keep ClearML from seeding the random generators of a training that has begun."""
    seed = getattr(task_class, "_random_seed", True)  # only a task can be asked for it
    task_class.set_random_seed(None)
    try:
        yield
    finally:
        task_class.set_random_seed(seed)


def _report_in_threads() -> None:
    """Have ClearML report without a process of its own, unless the user's settings ask for one.

    That is a fork of the training's process, and costs seconds when the task is closed.
    """
    config = import_module("clearml.config")
    key = "development.report_use_subprocess"
    if config.config.get(key, None) is None:
        config.config_obj.set_overrides({"sdk": {"development": {"report_use_subprocess": False}}})
        config.ConfigSDKWrapper.clear_config_impl()
