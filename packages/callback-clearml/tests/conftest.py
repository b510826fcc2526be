"""One server for all tests, because the SDK reads its address only once. Each test resets it."""

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
    """Return an empty server that answers."""
    shared.forget()
    shared.start()  # a failed test may have stopped it
    return shared


@pytest.fixture(autouse=True)
def clean(shared: ClearMLServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory, with no settings except those of the server."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("CLEARML_", "TRAINS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CLEARML_CONFIG_FILE", str(tmp_path / "none.conf"))
    monkeypatch.setenv("CLEARML_CACHE_DIR", str(tmp_path / "cache"))
    for name, value in shared.environment().items():
        monkeypatch.setenv(name, value)
