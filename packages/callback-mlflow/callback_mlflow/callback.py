"""`MLflowCallback`: logs a training to MLflow."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from callback_core import CallbackArguments, TrainerControl, TrainerState
from callback_core.tracking import DeliveryKind, TrackerCallback
from callback_mlflow.tracker import MLflowTracker

logger = logging.getLogger(__name__)


class MLflowCallback(TrackerCallback):
    """Sends parameters, metrics and optional checkpoints to MLflow, in the background.

    The callback uses the run that is active in the training's thread, and leaves it open; for a
    trial of a search, it opens a run inside that one. Otherwise it opens a run for each training,
    and closes it as `FINISHED`, `FAILED` or `KILLED`. Each setting defaults to the environment
    variable named with it.

    Args:
        tracking_uri: The server or database, such as `http://host:5000` or `sqlite:///mlflow.db`;
            else the argument of `mlflow.set_tracking_uri`, `MLFLOW_TRACKING_URI`, or MLflow's
            default.
        experiment_name: The experiment, created if it does not exist; else that of the run around
            the training's, the argument of `mlflow.set_experiment`, or `MLFLOW_EXPERIMENT_NAME`.
        run_id: Continue this run in every training of this callback; `MLFLOW_RUN_ID`.
        tags: Tags of the run; `MLFLOW_TAGS`, a JSON object.
        nested: Open a new run inside the active one; `MLFLOW_NESTED_RUN`.
        parent_run_id: Open a new run inside this one.
        log_artifacts: Copy each checkpoint to the run's artifacts; `HF_MLFLOW_LOG_ARTIFACTS`.
        flatten_params: Log each entry of a nested parameter as its own parameter, `outer.inner`;
            `MLFLOW_FLATTEN_PARAMS`.
        max_log_params: The most parameters to log; `MLFLOW_MAX_LOG_PARAMS`.
        log_system_metrics: Log the load of the machine while the training's own run is open;
            `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`. This needs psutil.
        delivery: `thread`, `process` or `inline`; see `TrackerCallback`.
        open_limit: Seconds that opening the run may take before a warning.
        flush_limit: Seconds that the end of training waits for undelivered data.
        redact: Names of arguments and logs whose values are secrets, in addition to those that are
            recognized automatically.

    Raises:
        ModuleNotFoundError: The SDK is not installed. A callback that is switched off needs none.
        ValueError: A setting is invalid.
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
        log_system_metrics: bool | None = None,
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
            log_system_metrics=log_system_metrics,
        )
        super().__init__(
            tracker,
            delivery=delivery,
            open_limit=open_limit,
            flush_limit=flush_limit,
            redact=redact,
        )

    def on_train_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Begin to record. In a search, each trial gets a run of its own inside the active one."""
        self.tracker.in_search = state.is_hyper_param_search
        super().on_train_begin(args, state, control, model, **kwargs)
        if self.options.delivery == "process" and self.tracker.log_system_metrics:
            logger.warning(
                "MLflow gets no system metrics: MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING, or "
                "log_system_metrics, has no effect with delivery='process'."
            )

    def make_tracker(self, **settings: Any) -> MLflowTracker:
        """Return a tracker with these settings. Subclasses return their own kind of tracker."""
        return MLflowTracker(**settings)
