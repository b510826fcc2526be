"""`DagsHubTracker`: a run in the MLflow of a DagsHub repository, and the model in its git."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from callback_core.tracking import Opening, Upload, config
from callback_dagshub.credentials import check_mlflow_variables, headers_for_mlflow, make_uploader
from callback_dagshub.repository import find_repository
from callback_dagshub.signing import SignedClient
from callback_dagshub.upload import commit_directory
from callback_mlflow import MLflowTracker

MODEL: Final = "model"
"""The name of the upload that holds the model. All other uploads are checkpoints."""

_MODEL_NAME: Final = r"\w[\w.-]*(/\w[\w.-]*)*"


class DagsHubTracker(MLflowTracker):
    """A run in DagsHub. `DagsHubCallback` documents the arguments.

    Raises:
        ValueError: A setting is invalid.
        NotConfigured: There is no repository.
    """

    name = "dagshub"
    requires: Mapping[str, str] = MappingProxyType({"mlflow": "mlflow", "dagshub": "dagshub"})

    def __init__(
        self,
        *,
        repository: str | None = None,
        branch: str | None = None,
        model_name: str | None = None,
        upload_model: bool | None = None,
        **mlflow_settings: Any,
    ) -> None:
        self.repository = find_repository(repository)
        check_mlflow_variables(self.repository)
        self.branch = config.text("branch", branch, "BRANCH")
        self.model_name = (
            config.matching(
                "model_name",
                model_name,
                "HF_DAGSHUB_MODEL_NAME",
                _MODEL_NAME,
                "a path of letters, digits and ._-",
            )
            or "main"
        )
        upload_model = config.flag("upload_model", upload_model, "HF_DAGSHUB_LOG_ARTIFACTS")
        self.upload_model = upload_model is True
        self._run_id = ""
        super().__init__(tracking_uri=self.repository.tracking_uri, **mlflow_settings)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of an equal tracker. DagsHub's own settings hold the token."""
        mlflow_settings = super().settings() or {}
        del mlflow_settings["tracking_uri"]
        return {
            "repository": self.repository.url,
            "branch": self.branch,
            "model_name": self.model_name,
            "upload_model": self.upload_model,
            **mlflow_settings,
        }

    def make_client(self, mlflow: Any) -> Any:
        """Return a client that signs its requests."""
        return SignedClient(super().make_client(mlflow), headers_for_mlflow(self.repository))

    def open(self, opening: Opening) -> str:
        """Open the run in MLflow.

        Raises:
            NotConfigured: There is no token.
        """
        self._run_id = super().open(opening)
        return self._run_id

    def log_files(self, upload: Upload) -> None:
        """Commit the model to the repository, or copy a checkpoint to the run's artifacts."""
        if upload.name != MODEL:
            return super().log_files(upload)
        message = f"Model of MLflow run {self._run_id}"
        uploader = make_uploader(self.repository, self.branch)
        commit_directory(uploader, upload.path, f"artifacts/{self.model_name}", message)
