"""`OpenRun`: logs to a run through MLflow's client, within what a request takes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from callback_core.tracking import Point, Rejected, Status, Upload
from callback_mlflow.runs import existing_run

logger = logging.getLogger(__name__)

_BATCH: Final = 100  # parameters, or tags, in a request
_TAG_LENGTH: Final = 5000

_STATUS: Final[dict[Status, str]] = {
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}


class OpenRun:
    """A run that is open.

    What MLflow will never take raises `Rejected`; all else that it raises means "not now".

    Args:
        client: An `MlflowClient`.
        run_id: The run.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self.client = client
        self.id = run_id

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags, or give those that are there another value."""
        RunTag = import_module("mlflow.entities").RunTag
        for batch in _batches(list(tags.items())):
            self._log(tags=[RunTag(name[:250], value[:_TAG_LENGTH]) for name, value in batch])

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Add points. MLflow's databases ignore one that they have, with the same milliseconds."""
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
            # Databases of older versions fail over a NaN that they have already.
            self._log(metrics=finite)
            for metric in metrics:
                if metric.value != metric.value and not self._has_nan(metric):
                    self._log(metrics=[metric])

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Log parameters that are new. Of others, which MLflow keeps, new values become tags."""
        given = {name: str(value) for name, value in parameters.items()}
        known = self.client.get_run(self.id).data.params
        changed = {name: value for name, value in given.items() if known.get(name, value) != value}
        if changed:
            logger.warning(
                "MLflow keeps parameters as they were logged first. The new values are tags: %s.",
                ", ".join(f"changed.{name} (was {known[name]:.40})" for name in changed),
            )
            self.set_tags({f"changed.{name}": value for name, value in changed.items()})
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
        """Copy a directory to the artifacts, under its name."""
        self.client.log_artifacts(self.id, str(upload.path), upload.name)

    def end(self, status: Status) -> None:
        """Set how the run ended. MLflow prints its address before that, with an emoji."""
        try:
            self.client.set_terminated(self.id, _STATUS[status])
        except UnicodeEncodeError:  # which not every output can write
            with _no_address_is_printed():
                self.client.set_terminated(self.id, _STATUS[status])

    def _has_nan(self, metric: Any) -> bool:
        history = self.client.get_metric_history(self.id, metric.key)
        return any(
            known.value != known.value
            and (known.step, known.timestamp) == (metric.step, metric.timestamp)
            for known in history
        )

    def _log_one_by_one(self, parameters: Sequence[Any]) -> list[str]:
        """Log each parameter, and return which of them MLflow refuses, and why."""
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
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            existing_run(self.client, self.id)  # a deleted one may be restored
            raise Rejected(error.message) from error


def _batches(entities: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (entities[start : start + _BATCH] for start in range(0, len(entities), _BATCH))


@contextmanager
def _no_address_is_printed() -> Iterator[None]:
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
