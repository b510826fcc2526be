"""Settings of the tests."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from callback_contract.testing import use_absolute_paths

use_absolute_paths()


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is written to the working directory go to a temporary one."""
    monkeypatch.chdir(tmp_path)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
