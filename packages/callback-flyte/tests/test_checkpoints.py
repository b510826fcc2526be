"""Checkpoints are kept in Flyte, whatever Flyte does, and found there again."""

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


def test_the_newest_checkpoint_is_kept_as_the_trainer_wrote_it(
    tmp_path: Path, running: Attempt
) -> None:
    trained(tmp_path / "run", FlyteCallback())
    assert running.checkpoints() == ["checkpoint-12"]
    assert files_in(running.kept / "checkpoint-12") == files_in(tmp_path / "run" / "checkpoint-12")
    assert not (tmp_path / "run" / ".flyte").exists()


def test_the_best_checkpoint_is_kept_too_and_loaded_at_the_end_of_a_retry(tmp_path: Path) -> None:
    # Steps so large that it gets worse after a while.
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


def test_the_first_attempt_and_one_after_nothing_was_kept_begin_anew(tmp_path: Path) -> None:
    with attempt(tmp_path / "flyte", 1):
        assert restored_checkpoint() is None
    with attempt(tmp_path / "flyte", 2):  # to which nobody has said that the first kept nothing
        assert restored_checkpoint() is None


@pytest.mark.parametrize("damage", ["a file", "the note", "all"])
def test_a_checkpoint_that_is_not_whole_is_not_restored(
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
    assert "has left no whole checkpoint" in caplog.text


def test_what_is_to_be_resumed_from_is_kept_by_the_attempt_that_does_before_its_own(
    tmp_path: Path,
) -> None:
    with attempt(tmp_path / "flyte", 1) as first:
        trained(tmp_path / "1", FlyteCallback(), max_steps=4)
    with attempt(tmp_path / "flyte", 2) as second:
        trainer = small_trainer(tmp_path / "2", FlyteCallback(), save_strategy="no")
        trainer.train(resume_from_checkpoint=current_context().checkpoint.restore())
    assert files_in(second.kept) == files_in(first.kept)


def test_a_training_that_goes_on_from_elsewhere_carries_nothing_over(tmp_path: Path) -> None:
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


def test_a_checkpoint_of_the_same_name_is_not_mixed_with_that_of_a_training_before(
    tmp_path: Path, running: Attempt
) -> None:
    (running.kept / "checkpoint-2").mkdir(parents=True)
    (running.kept / "checkpoint-2" / "rng_state_1.pth").write_bytes(b"of a second process")
    trained(tmp_path / "run", FlyteCallback(), max_steps=2)
    assert files_in(running.kept / "checkpoint-2") == files_in(tmp_path / "run" / "checkpoint-2")


def test_a_failed_upload_is_said_once_and_tried_again(
    tmp_path: Path, running: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    running.kept.parent.mkdir()
    running.kept.write_text("a file where the directory is to be")
    trained(tmp_path / "run", FlyteCallback(), At(9, running.kept.unlink))
    assert caplog.text.count("Flyte does not take a checkpoint") == 1
    assert "Training was not affected" not in caplog.text
    assert running.checkpoints() == ["checkpoint-12"]


def test_what_flyte_has_not_got_is_named_at_the_end_of_a_training_that_is_whole(
    tmp_path: Path, running: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    running.kept.parent.mkdir()
    running.kept.write_text("a file where the directory is to be")
    said = At(12, lambda: wait_until(lambda: "Flyte does not take a checkpoint" in caplog.text))
    trainer = trained(tmp_path / "run", FlyteCallback(flush_limit=0.5), said)
    assert trainer.state.global_step == 12
    [line] = [m for m in caplog.messages if m.startswith("Training was not affected")]
    assert "Flyte has not got checkpoint-12 (FlyteUploadDataException" in line
    assert "does not find it" in line
    wait_until(lambda: not (tmp_path / "run" / ".flyte").exists())
