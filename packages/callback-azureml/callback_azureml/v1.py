"""Logs to a run of Azure's SDK v1, `azureml.core.Run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from callback_core.tracking import Point, Status, Upload, import_sdk
from callback_mlflow import OpenRun


class RunOfV1(OpenRun):
    """A run of SDK v1. Its owner ends it: Azure or the user.

    Args:
        run: An `azureml.core.Run`; or the offline run that `Run.get_context()` returns outside a
            job, which only prints.
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        self.id = str(run.id)
        self._takes_steps = "step" in signature(run.log).parameters  # the offline run does not

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags. Existing ones get the new value."""
        if tags:
            self.run.set_tags(dict(tags))

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add points, and wait until they are sent; `log` alone does not wait."""
        for point in points:
            step = {"step": point.step} if self._takes_steps else {}
            self.run.log(point.name, point.value, **step)
        self.run.flush()

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Do nothing: SDK v1 has no parameters."""

    def log_files(self, upload: Upload) -> None:
        """Copy a directory to the run's files, under the upload's name."""
        self.run.upload_folder(upload.name, str(upload.path))

    def end(self, status: Status, at: float | None = None) -> None:
        """Leave the run open."""


def run_of_the_job() -> Any:
    """Return the run of this process's job.

    Raises:
        ModuleNotFoundError: SDK v1 is not installed.
    """
    core = import_sdk("azureml.core", install="callback-azureml[v1]", needed_by="AzureMLCallback")
    return core.Run.get_context(allow_offline=False)
