"""No test sees settings of MLflow from outside, or leaves any behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from callback_contract.testing import use_absolute_paths

# Read when MLflow is imported, and by the processes that tests start.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["GIT_PYTHON_REFRESH"] = "quiet"
# A server that is away is tried once more, and not for minutes; what fails is tried again by us.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
os.environ["MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"] = "0"

use_absolute_paths()

_KEPT = {name for name in os.environ if name.startswith("MLFLOW_")}


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in a directory of its own, without settings but those above, and put them back."""
    monkeypatch.chdir(tmp_path)
    names = [name for name in os.environ if "MLFLOW" in name and name not in _KEPT]
    for name in names:
        monkeypatch.delenv(name)
    yield
    left = [name for name in os.environ if "MLFLOW" in name and name not in _KEPT]
    for name in left:
        monkeypatch.delenv(name)
