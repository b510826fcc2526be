"""A server that all tests share, since the SDK asks where it is once; each test finds it empty."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import ClearMLServer

# Tests run in directories of their own, from which what is found by a relative path is not.
sys.path[:] = [os.path.abspath(path) for path in sys.path]


@pytest.fixture(scope="session")
def shared() -> Iterator[ClearMLServer]:
    server = ClearMLServer()
    yield server
    server.stop()


@pytest.fixture
def server(shared: ClearMLServer) -> ClearMLServer:
    """Return a server that has nothing, and answers."""
    shared.mode = "ok"
    kept = (shared.tasks, shared.models, shared.projects, shared.events, shared.files, shared.calls)
    for what in kept:
        what.clear()
    return shared


@pytest.fixture(autouse=True)
def clean(shared: ClearMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a directory of its own, without settings from outside, where the server is known."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("CLEARML_", "TRAINS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "none.conf"))
    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path / "cache"))
    for name, value in shared.environment().items():
        monkeypatch.setenv(name, value)
