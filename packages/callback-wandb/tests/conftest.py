"""No test sees settings of the SDK from outside, or leaves any behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from standin import StandIn

# Read when the SDK is imported, and by the processes that tests start.
os.environ["WANDB_SILENT"] = "true"
os.environ["WANDB_ERROR_REPORTING"] = "false"
os.environ["WANDB_X_DISABLE_STATS"] = "true"


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a directory of its own, offline, without settings from outside."""
    kept = ("WANDB_SILENT", "WANDB_ERROR_REPORTING", "WANDB_X_DISABLE_STATS")
    for name in list(os.environ):
        if name.startswith("WANDB_") and name not in kept:
            monkeypatch.delenv(name)
    elsewhere = tmp_path / "home"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(elsewhere))
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(elsewhere / name))


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Return a server that the SDK finds."""
    server = StandIn()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    yield server
    server.stop()
