"""Isolates each test from Neptune's settings and from the files of other tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from neptune_server import NeptuneServer

from callback_contract.testing import use_absolute_paths

use_absolute_paths()
for _name in [name for name in os.environ if name.startswith("NEPTUNE_")]:
    del os.environ[_name]
# Neptune reads these when it is imported: frequent retries, and no certificate for the test server.
os.environ |= {
    "NEPTUNE_RETRIES_TIMEOUT": "1",
    "NEPTUNE_REQUEST_TIMEOUT": "5",
    "OAUTHLIB_INSECURE_TRANSPORT": "1",
}


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory, which also holds Neptune's data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEPTUNE_DATA_DIRECTORY", str(tmp_path / "neptune"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NeptuneServer]:
    """Return a server that the SDK uses as Neptune during a test."""
    with NeptuneServer() as one:
        monkeypatch.setenv("NEPTUNE_API_TOKEN", one.token)
        monkeypatch.setenv("NEPTUNE_PROJECT", "team/digits")
        yield one
