"""No test sees settings of the SDK from outside, or leaves any behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wandb_server import WandbServer

from callback_contract.testing import use_absolute_paths

# Read when the SDK is imported, and by the processes that tests start.
_HOME = tempfile.TemporaryDirectory()
_KEPT = {
    "HOME": _HOME.name,
    "WANDB_CACHE_DIR": f"{_HOME.name}/cache",
    "WANDB_CONFIG_DIR": f"{_HOME.name}/config",
    "WANDB_DATA_DIR": f"{_HOME.name}/data",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_X_DISABLE_STATS": "true",
    "WANDB_X_SAVE_REQUIREMENTS": "false",  # most of what it takes to open a run
}
for _name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[_name]
os.environ |= _KEPT
# Tests run in directories of their own, where relative paths to packages lead nowhere.
use_absolute_paths()


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a directory of its own, offline."""
    own = tmp_path / "cwd"
    own.mkdir()
    monkeypatch.chdir(own)
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """Return a server that is W&B's for the time of a test."""
    with WandbServer() as one:
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", one.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        yield one


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the SDK give up after seconds, as the user can ask it to, until what this is is called.

    A server that is there may take as long on a machine that is busy.
    """

    def give_up_after(seconds: int) -> None:
        for name in ("INIT", "FINISH", "HTTP"):
            monkeypatch.setenv(f"WANDB_{name}_TIMEOUT", str(seconds))

    give_up_after(2)
    return lambda: give_up_after(60)
