"""Isolates each test from Comet's settings and from the experiments of other tests."""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from comet_server import CometServer

from callback_contract.testing import use_absolute_paths

# For this process and those that tests start: a home without settings, frequent connection checks,
# and no retries.
_HOME = tempfile.TemporaryDirectory()
os.environ |= {
    "HOME": _HOME.name,
    "COMET_TIMEOUT_HTTP": "60",
    "COMET_HTTP_SESSION_RETRY_TOTAL": "0",
    "COMET_GET_OR_ADD_EXPERIMENT_RETRY_TOTAL": "0",
    "COMET_FALLBACK_STREAMER_CONNECTION_CHECK_INTERVAL": "1",
    "COMET_ERROR_TRACKING_ENABLE": "false",
}
use_absolute_paths()

_KEPT = {name for name in os.environ if name.startswith("COMET_")}
for _name in [name for name in os.environ if "COMET" in name and name not in _KEPT]:
    del os.environ[_name]


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty directory, and leave no experiment open."""
    monkeypatch.chdir(tmp_path)
    yield
    # A thread may still be importing the SDK; `import_module` waits for that.
    comet_ml: Any = import_module("comet_ml") if "comet_ml" in sys.modules else None
    experiment = comet_ml and comet_ml.get_running_experiment()
    if experiment is not None and not experiment.ended:
        experiment.clean()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[CometServer]:
    """Return a server that the SDK uses as Comet during a test."""
    with CometServer() as one:
        monkeypatch.setenv("COMET_URL_OVERRIDE", f"{one.url}/clientlib/")
        # The SDK keeps a client for each key, with the address of its server.
        monkeypatch.setenv("COMET_API_KEY", uuid.uuid4().hex)
        yield one
