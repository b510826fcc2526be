"""Finds and creates runs and experiments with MLflow's client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final
from urllib.parse import urlsplit

from callback_core import NotConfigured
from callback_core.tracking import Opening, Redaction, Rejected, RunNotFound

TRAINING_TAG: Final = "callback_core.training"
"""This tag identifies a run that a process created before it could note the run's id."""

PARENT_TAG: Final = "mlflow.parentRunId"
"""The tag that makes MLflow show a run inside another."""

_NO_LOGIN: Final = "Reading Databricks credential configuration"
"""The text of MLflow's error without a Databricks login. The error has no code of its own."""


_NOT_THERE: Final = "RESOURCE_DOES_NOT_EXIST"

_REFUSED: Final = (
    _NOT_THERE,
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "CUSTOMER_UNAUTHORIZED",
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
)
"""Errors for which MLflow never opens a run: it will say the same again."""


@contextmanager
def final_errors() -> Iterator[None]:
    """Raise `NotConfigured` or `Rejected` instead of errors for which MLflow never opens a run."""
    MlflowException = import_module("mlflow.exceptions").MlflowException
    try:
        yield
    except MlflowException as error:
        if _NO_LOGIN in str(error):
            raise NotConfigured(error.message) from error
        if error.error_code in _REFUSED:
            raise Rejected(error.message) from error
        raise


def existing_run(client: Any, run_id: str) -> Any:
    """Return a run.

    Raises:
        RunNotFound: There is no such run, or it is deleted.
    """
    MlflowException = import_module("mlflow.exceptions").MlflowException
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == _NOT_THERE:
            raise RunNotFound(f"There is no MLflow run {run_id}") from error
        raise
    if run.info.lifecycle_stage != "active":
        raise RunNotFound(f"MLflow run {run_id} is deleted")
    return run


def named_run(client: Any, run_id: str) -> Any:
    """Return the run that a setting names.

    Raises:
        Rejected: There is no such run, or it is deleted.
    """
    try:
        return existing_run(client, run_id)
    except RunNotFound as error:
        raise Rejected(
            f"{error}. run_id or MLFLOW_RUN_ID names it: choose another one, or none. If it is "
            f"deleted, mlflow runs restore --run-id {run_id} brings it back"
        ) from error


def page_of(client: Any, run: Any) -> str | None:
    """Return the address of a run's page; `None` if no web server shows it."""
    uri = urlsplit(client.tracking_uri)
    if uri.scheme not in ("http", "https") or uri.hostname is None:
        return None
    host = uri.netloc.rpartition("@")[2]  # without user and password
    path = f"{uri.path.rstrip('/')}/#/experiments/{run.info.experiment_id}"
    return f"{uri.scheme}://{host}{path}/runs/{run.info.run_id}"


def find_or_create_run(
    client: Any, opening: Opening, experiment: str, tags: Mapping[str, str], parent: str | None
) -> Any:
    """Return the run of a training, and create it unless an earlier process did."""
    training = opening.training
    known = client.search_runs([experiment], f"tags.{TRAINING_TAG} = '{training}'", max_results=1)
    if known:
        return known[0]
    given = {TRAINING_TAG: training, **({} if parent is None else {PARENT_TAG: parent}), **tags}
    context = import_module("mlflow.tracking.context.registry")  # user, source, commit
    # Without a name MLflow draws one from Python's random generator, which the training may use.
    name = opening.trial_name or opening.name or f"run-{uuid.uuid4().hex[:8]}"
    tags = Redaction().of(context.resolve_tags(given))  # a git remote may have a password
    began = int(opening.time * 1000) or None  # the delivery may open the run much later
    return client.create_run(experiment, start_time=began, tags=tags, run_name=name)


def find_or_create_experiment(
    client: Any, name: str | None, experiment: str | None, parent: str | None
) -> str:
    """Return the id of an experiment, and create the experiment if it does not exist.

    Args:
        client: The client.
        name: The name of the experiment.
        experiment: Its id; `None` for that of the parent run, or else that of the environment.
        parent: The id of the parent run.

    Raises:
        Rejected: The experiment is deleted.
    """
    if name is None:
        if experiment is not None:
            return experiment
        if parent is not None:
            return str(client.get_run(parent).info.experiment_id)
        registry = import_module("mlflow.tracking.default_experiment.registry")
        return os.environ.get("MLFLOW_EXPERIMENT_ID") or str(registry.get_experiment_id())
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise Rejected(
            f"MLflow experiment {name!r} is deleted. Restore it with: mlflow experiments restore "
            f"--experiment-id {found.experiment_id}, or choose another experiment_name or "
            "MLFLOW_EXPERIMENT_NAME"
        )
    return str(found.experiment_id)
