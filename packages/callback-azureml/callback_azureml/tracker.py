"""`AzureMLTracker`: a run in Azure Machine Learning, through MLflow or through Azure's SDK v1."""

from __future__ import annotations

import logging
import os
import re
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
"""The start of a workspace's tracking URI."""

PARAMETERS: Final = 200
"""The most parameters of a run. Azure ML's error names this limit; its documentation does not."""

POINTS: Final = 250
"""The most points of a request, from the documentation of Azure ML's service limits."""

_NO_DESTINATION: Final = (
    "AzureMLCallback has no destination: there is no tracking URI, and this process is not an "
    "Azure ML job. Set MLFLOW_TRACKING_URI to the output of `az ml workspace show --query "
    "mlflow_tracking_uri`, or pass tracking_uri or azureml_run."
)


class AzureMLTracker(MLflowTracker):
    """A run in Azure ML. `AzureMLCallback` documents the arguments.

    Raises:
        ValueError: A setting is invalid.
    """

    name = "azure_ml"

    def __init__(self, azureml_run: Any = None, **settings: Any) -> None:
        if azureml_run is not None and not hasattr(azureml_run, "log"):
            raise ValueError(f"azureml_run is {azureml_run!r}, it must be an azureml.core.Run.")
        super().__init__(**settings)
        self.azureml_run = azureml_run
        self.requires = self._required()
        most = PARAMETERS if self.max_log_params is None else self.max_log_params
        self.limits = replace(self.limits, batch_size=POINTS, parameter_count=most)
        job = _job()
        if job is not None and settings.get("run_id") is None:
            if self.nested:
                self.parent_run_id = self.parent_run_id or job
            # MLFLOW_RUN_ID names the job's run. A nested run must not take that id.
            self.run_id = None if self.parent_run_id else self.run_id or job

    def check_configured(self) -> None:
        """Check that there is a destination.

        Raises:
            NotConfigured: There is no run, no tracking URI and no job.
        """
        if self.azureml_run is None and not self._has_uri() and _job() is None:
            raise NotConfigured(_NO_DESTINATION)

    def settings(self) -> dict[str, Any] | None:
        """Return the arguments of an equal tracker for the workspace that is in use here."""
        settings = None if self.azureml_run is not None else super().settings()
        if settings is not None and not self._has_uri():
            settings["tracking_uri"] = None  # not MLflow's default
        return settings

    def adopt(self) -> str | None:
        """Return the id of `azureml_run`, or of the user's active MLflow run."""
        return super().adopt() if self.azureml_run is None else str(self.azureml_run.id)

    def open(self, opening: Opening) -> str:
        """Open `azureml_run`, the job's run, the run to continue, or a new one.

        Raises:
            NotConfigured: There is no destination, for example because a replay has another
                environment; or there is no login.
        """
        self.check_configured()
        if self.azureml_run is None and self._has_uri():
            run_id = super().open(opening)
            self.run_url = self.run_url or page_of(self.run.client.tracking_uri, run_id)
            return run_id
        self.run = RunOfV1(self.azureml_run or run_of_the_job())
        self.run.set_tags(self.tags)
        portal = getattr(self.run.run, "get_portal_url", None)  # the offline run has none
        self.run_url = None if portal is None else str(portal())
        return self.run.id

    def make_client(self, mlflow: Any) -> Any:
        """Return the client. For a workspace, Azure's plugin serves it.

        Raises:
            NotConfigured: There is no Azure login.
        """
        if (self.tracking_uri or mlflow.get_tracking_uri()).startswith(SCHEME):
            import_sdk("azureml.mlflow", install="azureml-mlflow", needed_by="AzureMLCallback")
            client = super().make_client(mlflow)
            check_logged_in(client)
            return client
        logger.warning(
            "AzureMLCallback logs to an MLflow server outside Azure ML: the tracking URI does not "
            "begin with azureml:. To log to a workspace, set MLFLOW_TRACKING_URI."
        )
        return super().make_client(mlflow)

    def log_files(self, upload: Upload) -> None:
        """Copy a checkpoint to the run's artifacts as `name`, or as `<name>.2` if that exists."""
        if not isinstance(self.run, RunOfV1) and self.run.client.tracking_uri.startswith(SCHEME):
            upload = upload._replace(name=self._free_name(upload.name))
        super().log_files(upload)

    def close(self, status: Status | None) -> None:
        """Set how the run ended. The job's own run stays open: Azure ends it with the job."""
        super().close(None if self.run.id == _job() else status)

    def _required(self) -> dict[str, str]:
        """Return the modules that the destination needs. `azureml_run` has its own already."""
        if self.azureml_run is not None:
            return {}
        if self._has_uri():
            return {"mlflow": "mlflow", "azureml.mlflow": "azureml-mlflow"}
        return {} if _job() is None else {"azureml.core": "callback-azureml[v1]"}

    def _free_name(self, name: str) -> str:
        """Return an unused name for a folder of artifacts. Azure does not overwrite files.

        Raises:
            Rejected: The plugin would upload to another workspace. It ignores the client's tracking
                URI, and uses that of the process.
        """
        client = self.run.client
        if client.tracking_uri != sys.modules["mlflow"].get_tracking_uri():
            raise Rejected(
                "Azure's plugin uploads files only to the workspace of the process: set "
                f"MLFLOW_TRACKING_URI to {client.tracking_uri!r}"
            )
        taken = {entry.path for entry in client.list_artifacts(self.run.id)}
        names = (name, *(f"{name}.{number}" for number in range(2, len(taken) + 2)))
        return next(free for free in names if free not in taken)

    def _has_uri(self) -> bool:
        """Return whether the user set a tracking URI, so that MLflow does not use its default."""
        in_code = getattr(sys.modules.get("mlflow"), "is_tracking_uri_set", None)
        given = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        return bool(given or (in_code is not None and in_code()))


def page_of(tracking_uri: str, run_id: str) -> str | None:
    """Return the address of a run's page in Azure's studio; `None` outside a workspace."""
    workspace = re.search(r"/subscriptions/.*", tracking_uri.split("?")[0])
    if not tracking_uri.startswith(SCHEME) or workspace is None:
        return None
    named = workspace[0].replace("/providers/Microsoft.MachineLearningServices", "")
    return f"https://ml.azure.com/runs/{run_id}?wsid={named}"


def _job() -> str | None:
    """Return the id of the run of this process's job; `None` outside a job."""
    return os.environ.get("AZUREML_RUN_ID") or None
