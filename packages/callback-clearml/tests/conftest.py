"""A server that all tests share, since the SDK asks where it is once; each test finds it empty."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from clearml_server import ClearMLServer

from callback_contract.testing import use_absolute_paths

use_absolute_paths()


@pytest.fixture(scope="session")
def shared() -> Iterator[ClearMLServer]:
    with ClearMLServer() as server:
        yield server


@pytest.fixture
def server(shared: ClearMLServer) -> ClearMLServer:
    """Return a server that has nothing, and answers."""
    shared.forget()
    shared.start()  # where a test has failed that had stopped it
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
