"""Isolates each test from the settings of Azure and MLflow."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from callback_contract.testing import use_absolute_paths

# MLflow, the plugin and the processes that tests start read these.
_SET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # One retry instead of minutes of them; our own delivery retries.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "AZUREML_CURRENT_CLOUD": "AzureCloud",  # otherwise the plugin asks the internet
}
os.environ |= _SET
_HOME = tempfile.TemporaryDirectory()
os.environ["HOME"] = _HOME.name  # SDK v1 caches service addresses there
use_absolute_paths()


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Return a workspace whose certificate this process trusts. Making it takes seconds."""
    from workspace import Workspace

    made = Workspace(tmp_path_factory.mktemp("workspace"))
    os.environ["REQUESTS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = str(made.certificate[0])
    with made:
        yield made


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty directory, with no settings except those above, and no chosen experiment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if _is_foreign(name)]:
        monkeypatch.delenv(name)
    yield
    for name in [name for name in os.environ if _is_foreign(name)]:
        del os.environ[name]
    if fluent := sys.modules.get("mlflow.tracking.fluent"):
        fluent._active_experiment_id = None  # type: ignore[attr-defined]  # noqa: SLF001


def _is_foreign(name: str) -> bool:
    ours = name.startswith(("MLFLOW_", "HF_MLFLOW_", "DISABLE_MLFLOW_", "AZUREML_"))
    return ours and name not in _SET
