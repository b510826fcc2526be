"""Finds and creates runs and experiments with MLflow's client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from callback_core import NotConfigured
from callback_core.tracking import Opening, Redaction

TRAINING_TAG: Final = "callback_core.training"
"""This tag identifies a run that a process created before it could note the run's id."""

PARENT_TAG: Final = "mlflow.parentRunId"
"""The tag that makes MLflow show a run inside another."""

_NO_LOGIN: Final = "Reading Databricks credential configuration"
"""The text of MLflow's error without a Databricks login. The error has no code of its own."""


@contextmanager
def login_errors_as_not_configured() -> Iterator[None]:
    """Raise `NotConfigured` instead of MLflow's error about a missing Databricks login."""
    MlflowException = import_module("mlflow.exceptions").MlflowException
    try:
        yield
    except MlflowException as error:
        if _NO_LOGIN in str(error):
            raise NotConfigured(error.message) from error
        raise


def existing_run(client: Any, run_id: str) -> Any:
    """Return a run.

    Raises:
        RuntimeError: The run is deleted.
    """
    run = client.get_run(run_id)
    if run.info.lifecycle_stage != "active":
        raise RuntimeError(
            f"MLflow run {run_id} is deleted. Restore it with: mlflow runs restore --run-id "
            f"{run_id}"
        )
    return run


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
    return client.create_run(experiment, tags=tags, run_name=name)


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
        RuntimeError: The experiment is deleted.
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
        raise RuntimeError(
            f"MLflow experiment {name!r} is deleted. Restore it with: mlflow experiments restore "
            f"--experiment-id {found.experiment_id}, or choose another experiment_name or "
            "MLFLOW_EXPERIMENT_NAME."
        )
    return str(found.experiment_id)
