"""Isolates each test from MLflow's settings."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from reader import Database

from callback_contract.testing import use_absolute_paths

# MLflow and the processes that tests start read these.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["GIT_PYTHON_REFRESH"] = "quiet"
# One retry instead of minutes of them; our own delivery retries.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = "0"

use_absolute_paths()

_KEPT = {name for name in os.environ if name.startswith("MLFLOW_")}


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty directory, with no settings except those above, and restore these."""
    monkeypatch.chdir(tmp_path)
    names = [name for name in os.environ if "MLFLOW" in name and name not in _KEPT]
    for name in names:
        monkeypatch.delenv(name)
    yield
    left = [name for name in os.environ if "MLFLOW" in name and name not in _KEPT]
    for name in left:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def made_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty database. Creating it takes seconds."""
    mlflow: Any = import_module("mlflow")  # it reads its variables when it is imported
    path = tmp_path_factory.mktemp("made") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # the runs' artifacts go here
        mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(
    made_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """Return a new database, and set the tracking URI to it."""
    path = tmp_path / "mlflow.db"
    shutil.copy(made_database, path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    yield Database(path)
    mlflow: Any = import_module("mlflow")
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None  # noqa: SLF001
