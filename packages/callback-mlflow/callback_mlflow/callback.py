"""`MLflowCallback`: sends a training to MLflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from callback_core.tracking import DeliveryKind, TrackerCallback
from callback_mlflow.tracker import MLflowTracker


class MLflowCallback(TrackerCallback):
    """Sends parameters, metrics and, if asked to, checkpoints to MLflow, beside the training.

    A run that is active in the training's thread is used, and stays open. Otherwise one is opened
    for each training, and closed as `FINISHED`, `FAILED` or `KILLED`. A setting that is not given
    comes from the environment variable that is named with it.

    Args:
        tracking_uri: Where to, such as `http://host:5000` or `sqlite:///mlflow.db`; else what
            `mlflow.set_tracking_uri` was given, `MLFLOW_TRACKING_URI`, or MLflow's default.
        experiment_name: The experiment, which is made if it is not there;
            `MLFLOW_EXPERIMENT_NAME`, else what `mlflow.set_experiment` was given.
        run_id: Go on in this run, with every training of this callback; `MLFLOW_RUN_ID`.
        tags: Tags of the run; `MLFLOW_TAGS`, a JSON object.
        nested: Open a run of its own inside the active one; `MLFLOW_NESTED_RUN`.
        parent_run_id: Open a run inside this one.
        log_artifacts: Copy each checkpoint to the run's artifacts; `HF_MLFLOW_LOG_ARTIFACTS`.
        flatten_params: Log the entries of parameters that are mappings as parameters of their own,
            `outer.inner`; `MLFLOW_FLATTEN_PARAMS`.
        max_log_params: Parameters that are logged, at most; `MLFLOW_MAX_LOG_PARAMS`.
        delivery: `thread`, `process` or `inline`, as `TrackerCallback` has it.
        open_limit: Seconds that opening the run may take before this is said.
        flush_limit: Seconds that the end of training waits for what is not delivered yet.
        redact: Names of arguments and logs whose values are secrets, besides those that look so.

    Raises:
        ValueError: A setting is wrong.
    """

    tracker: MLflowTracker

    def __init__(
        self,
        *,
        tracking_uri: str | None = None,
        experiment_name: str | None = None,
        run_id: str | None = None,
        tags: Mapping[str, Any] | None = None,
        nested: bool | None = None,
        parent_run_id: str | None = None,
        log_artifacts: bool | None = None,
        flatten_params: bool | None = None,
        max_log_params: int | None = None,
        delivery: DeliveryKind = "thread",
        open_limit: float = 60.0,
        flush_limit: float = 30.0,
        redact: Iterable[str] = (),
    ) -> None:
        tracker = self.make_tracker(
            tracking_uri=tracking_uri,
            experiment_name=experiment_name,
            run_id=run_id,
            tags=tags,
            nested=nested,
            parent_run_id=parent_run_id,
            log_artifacts=log_artifacts,
            flatten_params=flatten_params,
            max_log_params=max_log_params,
        )
        super().__init__(
            tracker,
            delivery=delivery,
            open_limit=open_limit,
            flush_limit=flush_limit,
            redact=redact,
        )

    def make_tracker(self, **settings: Any) -> MLflowTracker:
        """Return the tracker with these settings; packages that build on this make theirs."""
        return MLflowTracker(**settings)
