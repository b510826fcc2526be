"""Isolates each test from Flyte's settings and from the files of other tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from attempts import TASK, Attempt, attempt

from callback_contract.testing import use_absolute_paths

use_absolute_paths()


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty directory with the environment of a task, as a user without settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("FLYTE", "_F_", "CALLBACKS_"))]:
        monkeypatch.delenv(name)
    for name, value in TASK.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Attempt]:
    """Run a test in the first attempt of a task."""
    with attempt(tmp_path / "flyte", 1) as one:
        yield one
