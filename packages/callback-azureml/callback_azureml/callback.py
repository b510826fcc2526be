"""`AzureMLCallback`: logs a training to Azure Machine Learning."""

from __future__ import annotations

from typing import Any

from callback_azureml.tracker import AzureMLTracker
from callback_mlflow import MLflowCallback


class AzureMLCallback(MLflowCallback):
    """Sends parameters, metrics and optional checkpoints to Azure ML, in the background.

    If `MLFLOW_TRACKING_URI` names a workspace, as it does in every Azure ML job, the callback logs
    through MLflow. In a job it uses the job's own run and leaves it open; elsewhere it opens a run
    for each training. A run of Azure's SDK v1 receives metrics and checkpoints only. SDK v1 has
    reached its end of life.

    Args:
        azureml_run: A run of SDK v1, which stays open. By default, if there is no tracking URI, the
            callback uses the job's run, from `Run.get_context()`.
        options: Arguments of `MLflowCallback`, with the same environment variables. The default of
            `max_log_params` is 200, the limit of Azure ML.

    Raises:
        ModuleNotFoundError: The SDK is not installed. A callback that is switched off needs none.
        ValueError: A setting is invalid.
        NotConfigured: There is no tracking URI, no run and no Azure ML job. A callback that
            `DISABLE_MLFLOW_INTEGRATION` disables does not raise this.
    """

    tracker: AzureMLTracker

    def __init__(self, azureml_run: Any = None, **options: Any) -> None:
        self._azureml_run = azureml_run
        super().__init__(**options)
        if not self.tracker.disabled:
            self.tracker.check_configured()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which does not have the user's run."""
        return super().__getstate__() | {"_azureml_run": None}

    def make_tracker(self, **settings: Any) -> AzureMLTracker:
        """Return a tracker with these settings."""
        return AzureMLTracker(self._azureml_run, **settings)
