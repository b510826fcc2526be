"""Isolates each test from MLflow's settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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
