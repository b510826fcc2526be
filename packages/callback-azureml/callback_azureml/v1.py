"""Logging to a run of Azure's SDK v1, `azureml.core.Run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

from callback_core.tracking import Point, Status, Upload, import_sdk
from callback_mlflow import OpenRun


class RunOfV1(OpenRun):
    """A run of SDK v1. Whose it is ends it: Azure that of a job, the user that of their own.

    Args:
        run: An `azureml.core.Run`, or the one that only prints, which `Run.get_context()` returns
            outside of a job.
    """

    def __init__(self, run: Any) -> None:
        self.run = run
        self.id = str(run.id)
        self._takes_steps = "step" in signature(run.log).parameters  # the one that prints does not

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, or give those that are there another value."""
        if tags:
            self.run.set_tags(dict(tags))

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add points, and wait until they are sent, which `log` does not."""
        for point in points:
            step = {"step": point.step} if self._takes_steps else {}
            self.run.log(point.name, point.value, **step)
        self.run.flush()

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Keep none: SDK v1 has no place for them."""

    def log_files(self, upload: Upload) -> None:
        """Copy a directory to the run's files, under its name."""
        self.run.upload_folder(upload.name, str(upload.path))

    def end(self, status: Status) -> None:
        """Leave the run open."""


def run_of_the_job() -> Any:
    """Return the run of the job that this process is in.

    Raises:
        ModuleNotFoundError: SDK v1 is not installed.
    """
    core = import_sdk("azureml.core", install="callback-azureml[v1]", needed_by="AzureMLCallback")
    return core.Run.get_context(allow_offline=False)
