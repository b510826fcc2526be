"""`OpenRun`: logs to a run through MLflow's client, within the limits of a request."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from callback_core.tracking import Point, Rejected, RunNotFound, Status, Upload
from callback_mlflow.runs import existing_run

logger = logging.getLogger(__name__)

_BATCH: Final = 100  # parameters, or tags, in a request
_NAME_LENGTH: Final = 250

_STATUS: Final[dict[Status, str]] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


class OpenRun:
    """An open run.

    The methods raise `Rejected` for data that MLflow never accepts, and `RunNotFound` if the run
    is not there any longer. Any other error means that a later call may succeed.

    Args:
        client: An `MlflowClient`.
        run_id: The id of the run.
        is_named: Whether a setting names the run, so that no other run takes its place.
    """

    def __init__(self, client: Any, run_id: str, is_named: bool = False) -> None:
        self.client = client
        self.id = run_id
        self._is_named = is_named

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags. Existing ones get the new value."""
        RunTag = import_module("mlflow.entities").RunTag
        for batch in _batches(list(tags.items())):
            self._log(tags=[RunTag(name, value) for name, value in batch])

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add points. MLflow's databases ignore a duplicate with the same time in milliseconds."""
        Metric = import_module("mlflow.entities").Metric
        MlflowException = import_module("mlflow.exceptions").MlflowException
        metrics = [
            Metric(point.name, float(point.value), int(point.time * 1000), point.step)
            for point in points
        ]
        try:
            self._log(metrics=metrics)
        except MlflowException as error:
            finite = [metric for metric in metrics if metric.value == metric.value]
            if error.error_code != "BAD_REQUEST" or len(finite) == len(metrics):
                raise
            # Older MLflow databases raise an error for a NaN that exists.
            self._log(metrics=finite)
            for metric in metrics:
                if metric.value != metric.value and not self._has_nan(metric):
                    self._log(metrics=[metric])

    def log_images(self, points: Sequence[Point]) -> None:
        """Add pictures, each an `mlflow.Image`."""
        for point in points:
            self.client.log_image(
                self.id,
                point.value,
                key=point.name,
                step=point.step,
                timestamp=int(point.time * 1000),
            )

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log new parameters. A changed value becomes a tag, since MLflow keeps the first value."""
        given = {name: str(value) for name, value in parameters.items()}
        known = self.client.get_run(self.id).data.params
        changed = {name: value for name, value in given.items() if known.get(name, value) != value}
        if changed:
            as_tags = {f"changed.{name}"[:_NAME_LENGTH]: name for name in changed}
            logger.warning(
                "MLflow does not change logged parameters. The new values are logged as tags: %s.",
                ", ".join(f"{tag} (was {known[name]:.40})" for tag, name in as_tags.items()),
            )
            self.set_tags({tag: changed[name] for tag, name in as_tags.items()})
        Param = import_module("mlflow.entities").Param
        refused: list[str] = []
        for batch in _batches([item for item in given.items() if item[0] not in known]):
            try:
                self._log(params=[Param(*item) for item in batch])
            except Rejected:
                refused += self._log_one_by_one([Param(*item) for item in batch])
        if refused:
            raise Rejected("; ".join(refused))

    def log_files(self, upload: Upload) -> None:
        """Copy a directory to the run's artifacts, under the upload's name."""
        self.client.log_artifacts(self.id, str(upload.path), upload.name)

    def end(self, status: Status, at: float | None = None) -> None:
        """Set how the run ended.

        Args:
            status: How.
            at: When, in seconds since 1970; `None` for now.
        """
        ended = None if at is None else int(at * 1000)
        with _without_printed_address():  # it was printed when the run began
            self.client.set_terminated(self.id, _STATUS[status], end_time=ended)

    def _has_nan(self, metric: Any) -> bool:
        history = self.client.get_metric_history(self.id, metric.key)
        return any(
            known.value != known.value
            and (known.step, known.timestamp) == (metric.step, metric.timestamp)
            for known in history
        )

    def _log_one_by_one(self, parameters: Sequence[Any]) -> list[str]:
        """Log each parameter, and return the names of refused ones with the reasons."""
        refused = []
        for parameter in parameters:
            try:
                self._log(params=[parameter])
            except Rejected as error:
                refused.append(f"{parameter.key}: {error}")
        return refused

    def _log(self, **entities: Sequence[Any]) -> None:
        MlflowException = import_module("mlflow.exceptions").MlflowException
        try:
            self.client.log_batch(self.id, **entities)
        except MlflowException as error:
            if error.error_code not in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
                raise
            try:
                existing_run(self.client, self.id)
            except RunNotFound as gone:
                if self._is_named:  # it may be restored
                    raise RuntimeError(str(gone)) from error
                raise
            raise Rejected(error.message) from error


def _batches(entities: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (entities[start : start + _BATCH] for start in range(0, len(entities), _BATCH))


@contextmanager
def _without_printed_address() -> Iterator[None]:
    name = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
