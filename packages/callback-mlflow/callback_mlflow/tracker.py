"""`MLflowTracker`: a run in MLflow, through its client."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from callback_core.tracking import (
    Limits,
    Opening,
    Point,
    Redaction,
    Status,
    Tracker,
    Upload,
    config,
    flattened,
    import_sdk,
)
from callback_mlflow import fluent
from callback_mlflow.open_run import OpenRun
from callback_mlflow.runs import (
    existing_run,
    final_errors,
    find_or_create_experiment,
    find_or_create_run,
    named_run,
    page_of,
)
from callback_mlflow.settings import absolute_uri, read_run_id, read_tags
from callback_mlflow.system_metrics import SystemMetrics

LIMITS: Final = Limits(
    batch_size=1000,
    parameter_length=6000,
    key_characters=r"\w.\- /" if sys.platform == "win32" else r"\w.\- /:",
    key_length=250,
    key_is_path=True,
)
"""The limits of MLflow since 2.10, from `mlflow.utils.validation`."""

_LONGEST_WAIT_FOR_DATABASE: Final = 60.0


class MLflowTracker(Tracker):
    """A run in MLflow. `MLflowCallback` documents the arguments.

    Args:
        experiment_id: The experiment that the program chose with `mlflow.set_experiment`.

    Attributes:
        in_search: Whether the training is a trial of a search, which gets a run of its own inside
            the active one.
        run: The open run, to which all methods delegate. A subclass may open its own kind of run.

    Raises:
        ValueError: A setting is invalid.
    """

    name = "mlflow"
    named_by = ("run_id",)
    requires: Mapping[str, str] = MappingProxyType({"mlflow": "mlflow"})
    sdk = "mlflow"

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
        experiment_id: str | None = None,
    ) -> None:
        self.tracking_uri = tracking_uri and absolute_uri(tracking_uri)
        self.experiment_name = config.text(
            "experiment_name", experiment_name, "MLFLOW_EXPERIMENT_NAME"
        )
        self.experiment_id = experiment_id
        self._names_experiment = experiment_name is not None
        self.in_search = False
        # A run inside another is a new one, whichever run the environment names.
        variable = None if parent_run_id else "MLFLOW_RUN_ID"
        self.run_id = read_run_id("run_id", run_id, variable)
        self.tags: dict[str, str] = Redaction().of(read_tags("tags", tags, "MLFLOW_TAGS"))
        self.nested = config.flag("nested", nested, "MLFLOW_NESTED_RUN") is True
        self.parent_run_id = parent_run_id
        log_artifacts = config.flag("log_artifacts", log_artifacts, "HF_MLFLOW_LOG_ARTIFACTS")
        self.log_artifacts = log_artifacts is True
        flatten_params = config.flag("flatten_params", flatten_params, "MLFLOW_FLATTEN_PARAMS")
        self.flatten_params = flatten_params is True
        most = config.count("max_log_params", max_log_params, "MLFLOW_MAX_LOG_PARAMS")
        self.max_log_params = most
        self._given_system_metrics = log_system_metrics
        self.log_system_metrics = self._wants_system_metrics()
        self._disabled = config.flag("disabled", None, "DISABLE_MLFLOW_INTEGRATION") is True
        self.limits = Limits(**{**vars(LIMITS), "parameter_count": most})
        self.thread = fluent.TrainingThread()
        self._parent = parent_run_id
        self._is_shown = False
        self.run: OpenRun
        self._system_metrics: SystemMetrics | None = None
        self._is_training = False

    @property
    def longest_wait(self) -> float:
        """How long the first step waits for the run. To create a database takes MLflow seconds."""
        uri = self.tracking_uri or fluent.tracking_uri() or os.environ.get("MLFLOW_TRACKING_URI")
        is_local = uri is None or "://" not in uri or uri.startswith(("sqlite:", "file:"))
        return _LONGEST_WAIT_FOR_DATABASE if is_local else super().longest_wait

    @property
    def disabled(self) -> bool:
        """Whether `DISABLE_MLFLOW_INTEGRATION` was set when the tracker was constructed."""
        return self._disabled

    @property
    def takes_checkpoints(self) -> bool:
        """Whether checkpoints become artifacts."""
        return self.log_artifacts

    def settings(self) -> dict[str, Any] | None:
        """Return the arguments of an equal tracker for the server that is in use here."""
        uri = self.tracking_uri or fluent.tracking_uri() or os.environ.get("MLFLOW_TRACKING_URI")
        uri = uri and absolute_uri(uri)
        if uri is not None and Redaction().of(uri) != uri:  # it contains credentials
            if self.tracking_uri is not None:
                return None
            uri = None  # a child process finds it in its environment
        return {
            "tracking_uri": uri,
            "experiment_name": self._experiment[0],
            "experiment_id": self._experiment[1],
            "run_id": self._continued_run,
            "tags": {"mlflow.source.name": sys.argv[0], **self.tags},
            "nested": self.nested,
            "parent_run_id": self._parent,
            "log_artifacts": self.log_artifacts,
            "flatten_params": self.flatten_params,
            "max_log_params": self.max_log_params,
            "log_system_metrics": self.log_system_metrics,
        }

    @property
    def _experiment(self) -> tuple[str | None, str | None]:
        """The name or the id of the experiment; neither for that of the parent run.

        What the program says takes precedence over the environment, as in MLflow.
        """
        if self._names_experiment:
            return self.experiment_name, None
        if self._parent is not None or self.experiment_id is not None:
            return None, None if self._parent is not None else self.experiment_id
        return self.experiment_name, None

    def adopt(self) -> str | None:
        """Return the id of the user's active run. With `nested`, make it the parent instead.

        In a search, it is the parent of each trial's run.
        """
        self._parent = self.parent_run_id or (self.run_id if self.in_search else None)
        if self.tracking_uri not in (None, fluent.tracking_uri()):
            return None
        self.experiment_id = fluent.experiment_id() or self.experiment_id
        run = fluent.active_run()
        if run is None:
            return None
        active: str = run.info.run_id
        if self.nested or self.in_search:
            self._parent = self._parent or active
            return None
        return active if self.run_id in (None, active) else None

    @property
    def _continued_run(self) -> str | None:
        """The run that the settings continue. In a search, it is the parent of each trial's run."""
        return None if self.in_search else self.run_id

    def begin(self) -> None:
        """Prepare to make the run, once it is open, the active one in the training's thread."""
        self.thread.enter()
        self._is_training = True
        self.log_system_metrics = self._wants_system_metrics()  # the program may have enabled them

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return arguments and model configuration, flattened with `flatten_params`."""
        parameters = {**model_config, **arguments}
        return flattened(parameters) if self.flatten_params else parameters

    def make_client(self, mlflow: Any) -> Any:
        """Return a new `MlflowClient` for all requests; called each time a run is opened.

        A subclass may return another client, for example one that signs its requests.
        """
        return mlflow.MlflowClient(tracking_uri=self.tracking_uri)

    def open(self, opening: Opening) -> str:
        """Open the requested run, the run to continue, or a new one.

        Raises:
            NotConfigured: The server is Databricks, and there is no login.
            RunNotFound: The run to continue is not there.
            Rejected: MLflow denies access, or a setting names a run that is not there.
        """
        mlflow = import_sdk("mlflow", install="mlflow", needed_by="MLflowCallback")
        client = self.make_client(mlflow)
        named = None if opening.adopted else self._continued_run
        run_id = named or opening.run_id
        with final_errors():
            if run_id is None:
                experiment = find_or_create_experiment(
                    client, *self._experiment, parent=self._parent
                )
                run = find_or_create_run(client, opening, experiment, self.tags, self._parent)
            else:
                run = (named_run if named else existing_run)(client, run_id)
        self.run = OpenRun(client, run.info.run_id, is_named=named is not None)
        self.run_url = page_of(client, run)
        if run_id is not None and not opening.adopted:
            client.update_run(run_id, status="RUNNING")
        self.run.set_tags(self.tags)
        is_here = absolute_uri(client.tracking_uri) == fluent.tracking_uri()
        self._is_shown = not opening.adopted and is_here
        if self._is_shown:
            self.thread.show(mlflow.ActiveRun(run), self._parent)
        if not opening.adopted and self._is_training and self.log_system_metrics:
            self._end_system_metrics()
            self._system_metrics = SystemMetrics(client, self.run.id)
        return self.run.id

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log new parameters. A changed value becomes a tag, since MLflow keeps the first value."""
        self.run.log_parameters(parameters)

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add `points`."""
        self.run.log_metrics(points)

    def takes(self, value: Any) -> bool:
        """Return whether `value` is an `mlflow.Image`."""
        cls = type(value)
        return cls.__name__ == "Image" and cls.__module__.partition(".")[0] == "mlflow"

    def log_objects(self, points: Sequence[Point]) -> None:
        """Add pictures."""
        self.run.log_images(points)

    def log_files(self, upload: Upload) -> None:
        """Copy a checkpoint to the run's artifacts, under the upload's name."""
        self.run.log_files(upload)

    def close(self, status: Status | None) -> None:
        """Set how the run ended."""
        self.thread.hide()
        self._end_system_metrics()
        if status is not None:
            self.run.end(status, self.ended_at)

    def release(self) -> None:
        """Leave no active run behind in the training's thread."""
        self._is_training = False
        self.thread.leave()
        if self._is_shown:
            fluent.remember(self.run.id)

    def _wants_system_metrics(self) -> bool:
        variable = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
        return config.flag("log_system_metrics", self._given_system_metrics, variable) is True

    def _end_system_metrics(self) -> None:
        if self._system_metrics is not None:
            self._system_metrics.end()
            self._system_metrics = None
