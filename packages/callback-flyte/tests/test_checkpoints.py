"""Storing checkpoints in Flyte, and restoring them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from attempts import Attempt, attempt
from flytekit import current_context

from callback_contract.testing import wait_until
from callback_flyte import FlyteCallback, restored_checkpoint
from trainer_torch import Trainer
from trainer_torch.testing import At, small_trainer

SAVING: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}


def files_in(directory: Path) -> dict[str, bytes]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def trained(folder: Path, *callbacks: Any, **changed: Any) -> Trainer:
    trainer = small_trainer(folder, *callbacks, **{**SAVING, **changed})
    trainer.train()
    return trainer


def test_the_newest_checkpoint_is_stored_unchanged(tmp_path: Path, running: Attempt) -> None:
    trained(tmp_path / "run", FlyteCallback())
    assert running.checkpoints() == ["checkpoint-12"]
    assert files_in(running.kept / "checkpoint-12") == files_in(tmp_path / "run" / "checkpoint-12")
    assert not (tmp_path / "run" / ".flyte").exists()


def test_the_best_checkpoint_is_stored_too_and_loaded_at_the_end_of_a_retry(tmp_path: Path) -> None:
    # A learning rate so high that the loss rises after a while.
    choice: dict[str, Any] = {
        **{"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2},
        **{"save_total_limit": 1, "learning_rate": 1.0},
    }
    whole = trained(tmp_path / "whole", **choice)
    best = Path(str(whole.state.best_model_checkpoint)).name
    assert best == "checkpoint-6"
    with attempt(tmp_path / "flyte", 1) as first:
        with pytest.raises(InterruptedError):
            trained(tmp_path / "1", FlyteCallback(), At(11, interrupt), **choice)
        assert first.checkpoints() == ["checkpoint-10", "checkpoint-6"]
    with attempt(tmp_path / "flyte", 2) as second:
        trainer = small_trainer(tmp_path / "2", FlyteCallback(), **{**SAVING, **choice})
        trainer.train(resume_from_checkpoint=restored_checkpoint())
        assert second.checkpoints() == ["checkpoint-12", "checkpoint-6"]
    for one, other in zip(whole.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(one, other)


def interrupt() -> None:
    raise InterruptedError


def test_without_a_stored_checkpoint_nothing_is_restored(tmp_path: Path) -> None:
    with attempt(tmp_path / "flyte", 1):
        assert restored_checkpoint() is None
    with attempt(tmp_path / "flyte", 2):  # it does not know that the first stored nothing
        assert restored_checkpoint() is None


@pytest.mark.parametrize("damage", ["a file", "the note", "all"])
def test_an_incomplete_checkpoint_is_not_restored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    with attempt(tmp_path / "flyte", 1) as first:
        trained(tmp_path / "run", FlyteCallback())
        if damage == "a file":
            (first.kept / "checkpoint-12" / "optimizer.pt").write_bytes(b"torn")
        elif damage == "the note":
            (first.kept / "newest.json").write_text('{"name": "check', "utf-8")
        else:
            shutil.rmtree(first.kept / "checkpoint-12")
    with attempt(tmp_path / "flyte", 2):
        assert restored_checkpoint() is None
    assert "callback_flyte.store" in {record.name for record in caplog.records}


def test_a_resumed_attempt_first_carries_over_its_checkpoint(
    tmp_path: Path,
) -> None:
    with attempt(tmp_path / "flyte", 1) as first:
        trained(tmp_path / "1", FlyteCallback(), max_steps=4)
    with attempt(tmp_path / "flyte", 2) as second:
        trainer = small_trainer(tmp_path / "2", FlyteCallback(), save_strategy="no")
        trainer.train(resume_from_checkpoint=current_context().checkpoint.restore())
    assert files_in(second.kept) == files_in(first.kept)


def test_resuming_from_another_directory_carries_nothing_over(tmp_path: Path) -> None:
    trained(tmp_path / "elsewhere", max_steps=6)
    with attempt(tmp_path / "flyte", 1):
        trained(tmp_path / "1", FlyteCallback(), max_steps=4)
    with attempt(tmp_path / "flyte", 2) as second:
        trainer = small_trainer(tmp_path / "2", FlyteCallback(), save_strategy="no")
        trainer.train(resume_from_checkpoint=tmp_path / "elsewhere")
    assert not second.kept.exists()


def test_a_second_training_replaces_the_checkpoints_of_the_first(
    tmp_path: Path, running: Attempt
) -> None:
    callback = FlyteCallback()
    trained(tmp_path / "1", callback)
    trained(tmp_path / "2", callback, max_steps=4, seed=1)
    assert running.checkpoints() == ["checkpoint-4"]
    assert files_in(running.kept / "checkpoint-4") == files_in(tmp_path / "2" / "checkpoint-4")


def test_a_checkpoint_is_not_mixed_with_an_earlier_one_of_the_same_name(
    tmp_path: Path, running: Attempt
) -> None:
    (running.kept / "checkpoint-2").mkdir(parents=True)
    (running.kept / "checkpoint-2" / "rng_state_1.pth").write_bytes(b"of a second process")
    trained(tmp_path / "run", FlyteCallback(), max_steps=2)
    assert files_in(running.kept / "checkpoint-2") == files_in(tmp_path / "run" / "checkpoint-2")


def test_a_failed_upload_is_reported_once_and_retried(
    tmp_path: Path, running: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    running.kept.parent.mkdir()
    running.kept.write_text("a file in place of the directory")
    trained(tmp_path / "run", FlyteCallback(), At(9, running.kept.unlink))
    assert len(warnings_of_the_sync(caplog)) == 1
    assert running.checkpoints() == ["checkpoint-12"]


def test_a_checkpoint_that_flyte_misses_is_reported_at_the_end(
    tmp_path: Path, running: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    running.kept.parent.mkdir()
    running.kept.write_text("a file in place of the directory")
    failed = At(12, lambda: wait_until(lambda: warnings_of_the_sync(caplog)))
    trainer = trained(tmp_path / "run", FlyteCallback(flush_limit=0.5), failed)
    assert trainer.state.global_step == 12
    line = warnings_of_the_sync(caplog)[-1]
    assert "checkpoint-12" in line and "FlyteUploadDataException" in line
    wait_until(lambda: not (tmp_path / "run" / ".flyte").exists())


def warnings_of_the_sync(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "callback_flyte.sync"]
