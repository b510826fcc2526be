"""`AzureMLTracker`: a run in Azure Machine Learning, through MLflow or through Azure's SDK v1."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from typing import Any, Final

from callback_azureml.login import check_logged_in
from callback_azureml.v1 import RunOfV1, run_of_the_job
from callback_core import NotConfigured
from callback_core.tracking import Opening, Rejected, Status, Upload, import_sdk
from callback_mlflow import MLflowTracker

logger = logging.getLogger(__name__)

SCHEME: Final = "azureml:"
"""What the tracking URI of a workspace begins with."""

PARAMETERS: Final = 200
"""Parameters that Azure ML takes of a run, as its error says; its documentation does not."""

POINTS: Final = 250
"""Points that it takes at once, as its documentation of service limits has it."""

_NOWHERE: Final = (
    "AzureMLCallback does not know where to log: there is no tracking URI, and this is no job of "
    "Azure ML. Set MLFLOW_TRACKING_URI to what `az ml workspace show --query mlflow_tracking_uri` "
    "prints, or pass tracking_uri or azureml_run."
)


class AzureMLTracker(MLflowTracker):
    """A run in Azure ML. Its arguments are described with `AzureMLCallback`.

    Raises:
        ValueError: A setting is wrong.
    """

    name = "azure_ml"

    def __init__(self, azureml_run: Any = None, **settings: Any) -> None:
        if azureml_run is not None and not hasattr(azureml_run, "log"):
            raise ValueError(f"azureml_run is {azureml_run!r}, it must be an azureml.core.Run.")
        super().__init__(**settings)
        self.azureml_run = azureml_run
        most = PARAMETERS if self.max_log_params is None else self.max_log_params
        self.limits = replace(self.limits, batch_size=POINTS, parameter_count=most)
        job = _job()
        if job is not None and settings.get("run_id") is None:
            if self.nested:
                self.parent_run_id = self.parent_run_id or job
            # MLFLOW_RUN_ID is that of the job, inside of which a run of its own may be asked for.
            self.run_id = None if self.parent_run_id else self.run_id or job

    def check_configured(self) -> None:
        """Do nothing where something says where to log.

        Raises:
            NotConfigured: There is no run, no tracking URI, and this is no job.
        """
        if self.azureml_run is None and not self._has_uri() and _job() is None:
            raise NotConfigured(_NOWHERE)

    def settings(self) -> dict[str, Any] | None:
        """Return what makes an equal tracker elsewhere, for the workspace that is in use here."""
        settings = None if self.azureml_run is not None else super().settings()
        if settings is not None and not self._has_uri():
            settings["tracking_uri"] = None  # and not MLflow's default
        return settings

    def adopt(self) -> str | None:
        """Return the id of the run that was given, or of the user's active run of MLflow."""
        return super().adopt() if self.azureml_run is None else str(self.azureml_run.id)

    def open(self, opening: Opening) -> str:
        """Open the run that was given, that of the job, the one of before, or a new one.

        Raises:
            NotConfigured: Nothing says where to log, as where a replay has another environment, or
                nobody is logged in.
        """
        self.check_configured()
        if self.azureml_run is None and self._has_uri():
            return super().open(opening)
        self.run = RunOfV1(self.azureml_run or run_of_the_job())
        self.run.set_tags(self.tags)
        return self.run.id

    def make_client(self, mlflow: Any) -> Any:
        """Return a client that Azure's plugin serves; or another, if that is where to log to.

        Raises:
            NotConfigured: Nobody is logged in to Azure.
        """
        if (self.tracking_uri or mlflow.get_tracking_uri()).startswith(SCHEME):
            import_sdk("azureml.mlflow", install="azureml-mlflow", needed_by="AzureMLCallback")
            client = super().make_client(mlflow)
            check_logged_in(client)
            return client
        logger.warning(
            "AzureMLCallback logs to another MLflow than Azure ML's, whose tracking URI begins "
            "with azureml:. If that is not what you want, set MLFLOW_TRACKING_URI."
        )
        return super().make_client(mlflow)

    def log_files(self, upload: Upload) -> None:
        """Copy a checkpoint to the run's artifacts, under its name; `<name>.2` if that is taken."""
        if not isinstance(self.run, RunOfV1) and self.run.client.tracking_uri.startswith(SCHEME):
            upload = upload._replace(name=self._free_name(upload.name))
        super().log_files(upload)

    def close(self, status: Status | None) -> None:
        """Set how the run ended; not that of the job, which ends with the job."""
        super().close(None if self.run.id == _job() else status)

    def _free_name(self, name: str) -> str:
        """Return a name for a folder of artifacts. Azure does not let a file be replaced.

        Raises:
            Rejected: The plugin would not find the workspace. It does not ask which client it works
                for, but takes the tracking URI of the process.
        """
        client = self.run.client
        if client.tracking_uri != sys.modules["mlflow"].get_tracking_uri():
            raise Rejected(
                "Azure's plugin uploads files only to the workspace of the environment: set "
                f"MLFLOW_TRACKING_URI to {client.tracking_uri!r}"
            )
        taken = {entry.path for entry in client.list_artifacts(self.run.id)}
        names = (name, *(f"{name}.{number}" for number in range(2, len(taken) + 2)))
        return next(free for free in names if free not in taken)

    def _has_uri(self) -> bool:
        """Return whether it is said where MLflow is to log to, so that it is not its default."""
        in_code = getattr(sys.modules.get("mlflow"), "is_tracking_uri_set", None)
        given = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        return bool(given or (in_code is not None and in_code()))


def _job() -> str | None:
    """Return the id of the run of the job that this process is in."""
    return os.environ.get("AZUREML_RUN_ID") or None
