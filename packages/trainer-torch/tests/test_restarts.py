"""torchrun starts a training again: it continues from what the attempts before have saved."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from resuming import EVERY_STEP, StopAt, same, weights
from small import trainer

from callback_core import TrainerCallback, get_last_checkpoint
from trainer_torch import Trainer
from trainer_torch.storage import restarts
from trainer_torch.storage.checkpoint import list_checkpoints

Attempt = Callable[..., None]


class Dies(TrainerCallback):
    """Raises an error at the end of a step, after its checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise ZeroDivisionError


class Asks(TrainerCallback):
    """Asks for a checkpoint at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_save |= state.global_step == self.step


class First(TrainerCallback):
    """Notes the step at which a training begins."""

    step: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = state.global_step


@pytest.fixture
def attempt(monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Begin an attempt of a launch, as a new process does."""

    def begin(number: int, launch: str = "launch") -> None:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(number))
        monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", launch)
        monkeypatch.setattr(restarts, "_begun", set())
        monkeypatch.setattr(restarts, "_to_write", {})

    return begin


def train(out: Path, *callbacks: TrainerCallback, resume: Any = None) -> tuple[int | None, Trainer]:
    """Train, until an error if there is one; return the first step, and the trainer."""
    first = First()
    made = trainer(out, first, *callbacks, **EVERY_STEP)
    with suppress(ZeroDivisionError):
        made.train(resume_from_checkpoint=resume)
    return first.step, made


@pytest.mark.parametrize("resume", [None, True, "checkpoint-3"])
def test_a_restarted_training_continues_from_the_newest_checkpoint(
    tmp_path: Path, attempt: Attempt, resume: Any
) -> None:
    whole = trainer(tmp_path / "whole", **EVERY_STEP)
    whole.train()
    out = tmp_path / "out"
    if resume:  # there must be something to resume from at the first start
        train(out, StopAt(3))
    resume = out / resume if isinstance(resume, str) else resume
    attempt(0)
    train(out, Dies(5), resume=resume)
    attempt(1)
    step, resumed = train(out, resume=resume)
    assert step == 5
    assert same(weights(resumed), weights(whole))


def test_a_restarted_training_starts_over_if_nothing_was_saved(
    tmp_path: Path, attempt: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    attempt(0)
    train(tmp_path, Dies(0))
    attempt(1)
    assert train(tmp_path)[0] == 0
    assert len([one for one in caplog.records if "restart 1" in one.getMessage()]) == 1


def test_false_starts_over_in_each_attempt(tmp_path: Path, attempt: Attempt) -> None:
    attempt(0)
    train(tmp_path, Dies(5), resume=False)
    attempt(1)
    assert train(tmp_path, resume=False)[0] == 0


def test_checkpoints_of_an_earlier_launch_are_not_taken_for_those_of_this_one(
    tmp_path: Path, attempt: Attempt
) -> None:
    train(tmp_path, StopAt(7))
    attempt(0)
    train(tmp_path, Dies(0))  # starts over, and dies before it saves
    attempt(1)
    assert train(tmp_path, Dies(4))[0] == 0
    attempt(2)
    assert train(tmp_path)[0] == 4  # checkpoint-4 was written again, checkpoint-7 was not


def test_an_attempt_that_died_before_the_training_leaves_it_to_the_next(
    tmp_path: Path, attempt: Attempt
) -> None:
    attempt(0, launch="earlier")
    train(tmp_path, StopAt(7))
    attempt(1)
    assert train(tmp_path)[0] == 0


def test_of_two_trainings_in_a_directory_the_second_starts_over(
    tmp_path: Path, attempt: Attempt
) -> None:
    attempt(0)
    train(tmp_path, StopAt(6))
    train(tmp_path, Dies(3))
    attempt(1)
    assert train(tmp_path, StopAt(7))[0] == 6
    assert train(tmp_path)[0] == 0


def test_without_max_restarts_nothing_is_noted(
    tmp_path: Path, attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(0)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    train(tmp_path, StopAt(2))
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-1", "checkpoint-2"]
    assert train(tmp_path)[0] == 0


def test_nothing_is_noted_before_there_is_a_checkpoint(tmp_path: Path, attempt: Attempt) -> None:
    attempt(0)
    trainer(tmp_path).train()
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_that_only_a_callback_asked_for_is_continued_from(
    tmp_path: Path, attempt: Attempt
) -> None:
    attempt(0)
    made = trainer(tmp_path, Asks(2), Dies(4))
    with pytest.raises(ZeroDivisionError):
        made.train()
    attempt(1)
    assert train(tmp_path)[0] == 2


def test_true_without_a_checkpoint_is_an_error_in_each_attempt(
    tmp_path: Path, attempt: Attempt
) -> None:
    for number in range(2):
        attempt(number)
        with pytest.raises(FileNotFoundError):
            train(tmp_path, resume=True)


def test_a_script_can_resume_if_there_is_something(tmp_path: Path, attempt: Attempt) -> None:
    attempt(0)
    assert train(tmp_path, StopAt(2), resume=get_last_checkpoint(tmp_path))[0] == 0
    attempt(0, launch="next")
    assert train(tmp_path, resume=get_last_checkpoint(tmp_path))[0] == 2


def test_a_damaged_checkpoint_of_the_attempt_before_is_passed_over(
    tmp_path: Path, attempt: Attempt
) -> None:
    attempt(0)
    train(tmp_path, Dies(5))
    (list_checkpoints(tmp_path)[-1] / "optimizer.pt").write_bytes(b"")
    attempt(1)
    assert train(tmp_path)[0] == 4
