"""Isolates each test from CodeCarbon's settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from callback_contract.testing import use_absolute_paths

use_absolute_paths()


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory, as a user without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.lower().startswith("codecarbon_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
