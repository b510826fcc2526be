"""Stores that refuse, fail or hang, and addresses with unusual characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from failing_store import empty_store
from small import trainer

from trainer_torch.remote import RemoteDirectory

EVERY_STEP: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "max_steps": 6}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test an empty cache and an empty store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "machine"))
    monkeypatch.setattr("trainer_torch.remote._PAUSE", 0.0)
    monkeypatch.setattr("trainer_torch.uploader._FIRST_PAUSE", 0.0)
    monkeypatch.setattr("trainer_torch.uploader._PAUSE_AT_END", 0.0)
    empty_store()
    return tmp_path / "machine"


def names(address: str) -> list[str]:
    """Return the names of the checkpoints that are whole at `address`, the oldest first."""
    found = RemoteDirectory(address).list_checkpoints()
    return [one.name for one in found if one.find_fault() is None]


@pytest.mark.parametrize("store", ["failing://bucket", "file://{}"])
@pytest.mark.parametrize("name", ["run[1]", "run?", "r*1", "run[!2]"])
def test_rotation_deletes_only_in_its_own_directory(tmp_path: Path, store: str, name: str) -> None:
    beside, own = (f"{store.format(tmp_path / 'store')}/{one}" for one in ("run1", name))
    trainer(beside, **{**EVERY_STEP, "max_steps": 3}).train()
    trained = trainer(own, **EVERY_STEP, save_total_limit=2)
    trained.train()
    assert names(beside) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert names(own) == ["checkpoint-5", "checkpoint-6"]
    files = RemoteDirectory(own).list_files()
    assert not [one for one in files if one.startswith("checkpoint-1/")]
    assert not (tmp_path / "store" / name / "checkpoint-1").exists()
