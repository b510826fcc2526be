"""Provides a stand-in for DagsHub, and isolates each test from the user's settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagshub_server import TOKEN, DagsHub

from callback_contract.testing import use_absolute_paths
from callback_mlflow.testing import MLflowServer, Runs

# The SDKs and the processes that tests start read these.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["GIT_PYTHON_REFRESH"] = "quiet"
os.environ["DAGSHUB_DISABLE_ANALYTICS"] = "1"
# One retry instead of minutes of them; our own delivery retries.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = "0"

use_absolute_paths()

_KEPT = {*os.environ}


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of an MLflow server."""
    server = MLflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    server.wait()
    yield server.uri
    server.stop()


@pytest.fixture
def reader(mlflow_uri: str) -> Runs:
    """Return a reader of that server that bypasses DagsHub."""
    return Runs(mlflow_uri)


@pytest.fixture
def dagshub(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsHub]:
    """Return a stand-in for DagsHub in front of the server, and log in with its token."""
    with DagsHub(mlflow_uri) as made:
        monkeypatch.setenv("DAGSHUB_CLIENT_HOST", made.url)
        monkeypatch.setenv("DAGSHUB_USER_TOKEN", TOKEN)
        yield made


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory outside any git repository, without the user's settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("DAGSHUB_CLIENT_TOKENS_CACHE", str(tmp_path / "tokens"))
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [n for n in os.environ if "MLFLOW" in n or "DAGSHUB" in n or n == "BRANCH"]
    for name in names:
        if name not in (*_KEPT, "DAGSHUB_CLIENT_TOKENS_CACHE"):
            monkeypatch.delenv(name)
