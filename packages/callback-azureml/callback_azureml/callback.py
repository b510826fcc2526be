"""`AzureMLCallback`: sends a training to Azure Machine Learning."""

from __future__ import annotations

from typing import Any

from callback_azureml.tracker import AzureMLTracker
from callback_mlflow import MLflowCallback


class AzureMLCallback(MLflowCallback):
    """Sends parameters, metrics and, if asked to, checkpoints to Azure ML, beside the training.

    Where `MLFLOW_TRACKING_URI` is that of a workspace, as in each job, they go there by MLflow:
    in a job to the job's own run, which stays open, elsewhere to a run for each training. A run of
    Azure's SDK v1, which is at its end of life, is sent metrics and checkpoints.

    Args:
        azureml_run: A run of SDK v1, which stays open. Where it is not given, that of the job is
            looked for by `Run.get_context()`, if there is no tracking URI.
        options: Those of `MLflowCallback`, with the same environment variables. `max_log_params` is
            200 where nothing is said, which is what Azure ML takes.

    Raises:
        ValueError: A setting is wrong.
        NotConfigured: There is no tracking URI and no run, this is no job of Azure ML, and
            `DISABLE_MLFLOW_INTEGRATION` does not say that nothing is to be sent.
    """

    tracker: AzureMLTracker

    def __init__(self, azureml_run: Any = None, **options: Any) -> None:
        self._azureml_run = azureml_run
        super().__init__(**options)
        if not self.tracker.disabled:
            self.tracker.check_configured()

    def make_tracker(self, **settings: Any) -> AzureMLTracker:
        """Return the tracker with these settings."""
        return AzureMLTracker(self._azureml_run, **settings)
