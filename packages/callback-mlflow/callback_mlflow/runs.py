"""Finding and making runs and experiments with MLflow's client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from callback_core import NotConfigured
from callback_core.tracking import Opening

TRAINING_TAG: Final = "callback_core.training"
"""The tag by which a run is found again whose id was lost while it was being opened."""

PARENT_TAG: Final = "mlflow.parentRunId"
"""The tag by which MLflow shows a run inside another."""

_NOBODY: Final = "Reading Databricks credential configuration"
"""What MLflow's error says of somebody without a login at Databricks; it has no code of its own."""


@contextmanager
def telling_who_is_not_logged_in() -> Iterator[None]:
    """Raise `NotConfigured` in place of MLflow's error that there is no login for Databricks."""
    MlflowException = import_module("mlflow.exceptions").MlflowException
    try:
        yield
    except MlflowException as error:
        if _NOBODY in str(error):
            raise NotConfigured(error.message) from error
        raise


def existing_run(client: Any, run_id: str) -> Any:
    """Return a run.

    Raises:
        RuntimeError: It is deleted.
    """
    run = client.get_run(run_id)
    if run.info.lifecycle_stage != "active":
        raise RuntimeError(
            f"MLflow run {run_id} is deleted. Restore it with: mlflow runs restore --run-id "
            f"{run_id}"
        )
    return run


def new_run(
    client: Any, opening: Opening, experiment: str, tags: Mapping[str, str], parent: str | None
) -> Any:
    """Return the run of a training, which is there already where its id got lost on the way."""
    training = opening.training
    known = client.search_runs([experiment], f"tags.{TRAINING_TAG} = '{training}'", max_results=1)
    if known:
        return known[0]
    given = {TRAINING_TAG: training, **({} if parent is None else {PARENT_TAG: parent}), **tags}
    context = import_module("mlflow.tracking.context.registry")  # who, from what, at which commit
    # MLflow draws a missing name from Python's generator, which is the training's.
    name = opening.trial_name or opening.name or f"run-{uuid.uuid4().hex[:8]}"
    return client.create_run(experiment, tags=context.resolve_tags(given), run_name=name)


def experiment_id(client: Any, name: str | None, parent: str | None) -> str:
    """Return the experiment of that name, which is made if it is not there.

    Without a name it is that of the parent, or the one that MLflow's fluent API writes to.

    Raises:
        RuntimeError: It is deleted.
    """
    if name is None:
        if parent is not None:
            return str(client.get_run(parent).info.experiment_id)
        chosen = os.environ.get("MLFLOW_EXPERIMENT_ID")  # which mlflow.set_experiment sets too
        registry = import_module("mlflow.tracking.default_experiment.registry")
        return chosen or str(registry.get_experiment_id())
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
