"""A checkpoint with a damaged file is not resumed from."""

from __future__ import annotations

import random
from pathlib import Path

import corruptions
import pytest
from resuming import EVERY_STEP
from small import trainer

from trainer_torch.storage.checkpoint import MANIFEST, find_fault


@pytest.mark.slow
def test_damages_of_each_kind_are_recognized() -> None:
    done, recognized = corruptions.check(12, random.Random(1))
    assert done.total() == 12
    assert recognized == done


@pytest.mark.parametrize("damage", corruptions.DAMAGES)
def test_a_damaged_manifest_is_recognized(tmp_path: Path, damage: corruptions.Damage) -> None:
    trainer(tmp_path, max_steps=2, **EVERY_STEP).train()
    older, newer = (tmp_path / f"checkpoint-{step}" / MANIFEST for step in (1, 2))
    whole = newer.read_bytes()
    for seed in range(60):
        damage(newer, older, random.Random(seed))
        assert find_fault(newer.parent) is not None, seed
        newer.write_bytes(whole)
    assert find_fault(newer.parent) is None
