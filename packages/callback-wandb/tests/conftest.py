"""Isolates each test from the SDK's settings."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wandb_server import WandbServer

from callback_contract.testing import use_absolute_paths

# The SDK and the processes that tests start read these.
_HOME = tempfile.TemporaryDirectory()
_KEPT = {
    "HOME": _HOME.name,
    "WANDB_CACHE_DIR": f"{_HOME.name}/cache",
    "WANDB_CONFIG_DIR": f"{_HOME.name}/config",
    "WANDB_DATA_DIR": f"{_HOME.name}/data",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_X_DISABLE_STATS": "true",
    "WANDB_X_SAVE_REQUIREMENTS": "false",  # most of the time to open a run
}
for _name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[_name]
os.environ |= _KEPT
# Tests change the directory, so relative paths to packages would not work.
use_absolute_paths()


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory, offline."""
    own = tmp_path / "cwd"
    own.mkdir()
    monkeypatch.chdir(own)
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """Return a server that the SDK uses as W&B during a test."""
    with WandbServer() as one:
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", one.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        yield one


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give the SDK timeouts of 2 seconds, and return a function that raises them to 60.

    On a busy machine, a running server may need more than 2 seconds.
    """

    def give_up_after(seconds: int) -> None:
        for name in ("INIT", "FINISH", "HTTP"):
            monkeypatch.setenv(f"WANDB_{name}_TIMEOUT", str(seconds))

    give_up_after(2)
    return lambda: give_up_after(60)
