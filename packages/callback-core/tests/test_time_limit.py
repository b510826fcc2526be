"""A training ends in time, with a checkpoint."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    TimeLimit,
    TrainerControl,
    TrainerState,
)


class Loop:
    """Trains on a clock of its own: each step, evaluation and save takes as long as it says."""

    def __init__(
        self, limit: float | str, lengths: Any, *, steps: int = 10_000, **changed: Any
    ) -> None:
        self.now = 0.0
        self.lengths = lengths
        self.limit = TimeLimit(limit, clock=lambda: self.now, **changed.pop("settings", {}))
        usual: dict[str, Any] = {"logging_steps": 1000, "eval_steps": 1000, "save_steps": 1000}
        usual |= {"logging_strategy": "no", "eval_strategy": "no", "save_strategy": "no"}
        flow = {"logging_first_step": False, "eval_delay": 0}
        self.args: Any = SimpleNamespace(**{**usual, **flow, **changed})
        self.state = TrainerState(max_steps=steps, epoch=0)
        self.state.compute_steps(self.args, steps)
        self.control = TrainerControl()
        self.handler = CallbackHandler([DefaultFlowCallback, self.limit], None, None, None, None)
        self.saved: list[int] = []
        self.evaluated: list[int] = []

    def fire(self, event: str) -> None:
        self.control = getattr(self.handler, event)(self.args, self.state, self.control)

    def train(self, steps_in_epoch: int = 10) -> Loop:
        self.fire("on_train_begin")
        while not self.control.should_training_stop:
            self.fire("on_epoch_begin")
            for _ in range(steps_in_epoch):
                self.fire("on_step_begin")
                self.now += self.lengths("step")
                self.state.global_step += 1
                self.state.epoch = self.state.global_step / steps_in_epoch
                self.fire("on_step_end")
                self.do_what_is_asked()
                if self.control.should_training_stop:
                    break
            self.fire("on_epoch_end")
            self.do_what_is_asked()
        self.fire("on_train_end")
        return self

    def do_what_is_asked(self) -> None:
        if self.control.should_evaluate:
            self.now += self.lengths("evaluation")
            self.evaluated.append(self.state.global_step)
            self.fire("on_evaluate")
        if self.control.should_save:
            self.now += self.lengths("save")
            self.saved.append(self.state.global_step)
            self.fire("on_save")


class SavesBeside(Loop):
    """Writes checkpoints beside the training, one after the other, and waits for the last one."""

    writing: tuple[int, float] | None = None

    def do_what_is_asked(self) -> None:
        if self.writing is not None and self.writing[1] <= self.now:
            self.finish()
        if self.control.should_save:
            self.finish()
            self.writing = self.state.global_step, self.now + self.lengths("save")
            self.control.reset({"should_save": False})

    def finish(self) -> None:
        if self.writing is not None:
            step, until = self.writing
            self.writing, self.now = None, max(self.now, until)
            self.saved.append(step)
            now, self.state.global_step = self.state.global_step, step
            asked = self.control.should_save
            self.fire("on_save")
            self.state.global_step, self.control.should_save = (
                now,
                asked or self.control.should_save,
            )

    def fire(self, event: str) -> None:
        if event == "on_train_end":
            self.finish()
        super().fire(event)


def constant(**lengths: float) -> Any:
    return lambda what: lengths.get(what, 0.0)


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [
        ("3:50:00", 13_800),
        ("1-12:00:00", 129_600),
        (90, 90),
        (0.5, 0.5),
        (timedelta(minutes=2), 120),
    ],
)
def test_a_limit_is_a_text_seconds_or_a_timedelta(limit: Any, seconds: float) -> None:
    assert TimeLimit(limit).limit == seconds


@pytest.mark.parametrize("limit", ["50:00", "3h", "1:60:00", "", 0, -1, None, True, timedelta(0)])
def test_any_other_limit_is_refused(limit: Any) -> None:
    with pytest.raises(ValueError, match="limit"):
        TimeLimit(limit)


@pytest.mark.parametrize("settings", [{"since": "job"}, {"reserve": 60}, {"reserve": -1}])
def test_other_settings_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        TimeLimit(60, **settings)


def test_a_training_stops_so_that_its_last_step_and_checkpoint_fit() -> None:
    loop = Loop(100, constant(step=1, save=8), save_strategy="steps", save_steps=10).train()
    assert loop.now <= 95  # five seconds are kept in reserve
    assert loop.now > 95 - 2 * (8 + 1 + 8)  # and little more than needed
    assert loop.saved[-1] == loop.state.global_step
    [asked] = [one for one in loop.control.requests if one.flag == "should_training_stop"]
    assert asked.by == "TimeLimit"
    assert asked.reason is not None
    assert "100" in asked.reason


@pytest.mark.parametrize("save_steps", [1, 7, 20, 45, 60, 70])
@pytest.mark.parametrize("save", [15, 30])
def test_a_checkpoint_that_is_written_beside_the_training_is_complete_in_time(
    save_steps: int, save: float
) -> None:
    saving = {"save_strategy": "steps", "save_steps": save_steps}
    loop = SavesBeside(100, constant(step=0.5, save=save), **saving).train()
    assert 50 < loop.now <= 100
    assert loop.saved[-1] == loop.state.global_step


def test_a_save_that_ends_after_the_last_step_stops_nothing() -> None:
    saving = {"save_strategy": "steps", "save_steps": 10}
    loop = SavesBeside(100, constant(step=1, save=60), steps=20, **saving).train()
    assert loop.saved == [10, 20]
    assert all(one.by != "TimeLimit" for one in loop.control.requests)


def test_a_save_that_fails_takes_no_time() -> None:
    loop = Loop(100, constant(step=1, save=2), save_strategy="steps", save_steps=20)
    fire = loop.fire

    def fire_other_than_on_save(event: str) -> None:
        if event == "on_save":
            loop.control.reset({"should_save": False})
        else:
            fire(event)

    loop.fire = fire_other_than_on_save  # type: ignore[method-assign]
    assert loop.train().now > 85


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_the_evaluation_that_is_due_next_fits_too(strategy: str) -> None:
    lengths = constant(step=1, evaluation=30, save=2)
    loop = Loop(150, lengths, eval_strategy=strategy, eval_steps=10).train()
    assert loop.now <= 150
    assert loop.evaluated[:2] == [10, 20]
    assert loop.saved[-1] == loop.state.global_step


def test_a_stop_within_an_epoch_does_not_evaluate_or_save_twice() -> None:
    loop = Loop(
        100, constant(step=3, evaluation=5, save=2), eval_strategy="epoch", save_strategy="epoch"
    ).train(20)
    assert loop.state.global_step % 20
    assert loop.evaluated == [20]
    assert loop.saved == [20, loop.state.global_step]


def test_a_first_step_that_compiles_does_not_count() -> None:
    lengths = iter([30.0] + [1.0] * 1000)
    loop = Loop(100, lambda what: next(lengths) if what == "step" else 0.0).train()
    assert loop.now > 90


@pytest.mark.parametrize("seed", range(20))
def test_trainings_of_random_lengths_end_in_time_with_a_checkpoint(seed: int) -> None:
    draw = random.Random(seed)
    means = {"step": draw.uniform(0.1, 5), "evaluation": draw.uniform(1, 120), "save": 10}
    loop = Loop(
        3600,
        lambda what: means[what] * draw.uniform(0.5, 1.5),
        eval_strategy=draw.choice(["no", "steps", "epoch"]),
        eval_steps=draw.choice([7, 50]),
        save_strategy=draw.choice(["no", "steps", "epoch"]),
        save_steps=50,
    ).train(draw.choice([10, 100]))
    assert 3600 * 0.8 < loop.now <= 3600
    assert loop.saved[-1] == loop.state.global_step


def test_a_training_that_is_done_before_its_limit_is_not_stopped() -> None:
    loop = Loop(100, constant(step=1), steps=30).train()
    assert loop.state.global_step == 30
    assert loop.saved == []
    assert all(one.by != "TimeLimit" for one in loop.control.requests)


def test_the_next_training_has_the_whole_limit_again() -> None:
    loop = Loop(100, constant(step=1)).train()
    before, loop.state.global_step = loop.now, 0
    loop.train()
    assert loop.now == 2 * before


def test_the_time_can_begin_with_the_job() -> None:
    settings = {"since": time.time() - 3000}
    loop = Loop(3600, constant(step=1), settings=settings).train()
    assert loop.now < 600


def test_the_time_can_begin_with_the_process() -> None:
    loop = Loop(1e9, constant(step=1), settings={"since": "process"}, steps=2).train()
    assert loop.state.global_step == 2
    now = Loop(1e-9, constant(step=1), settings={"since": "process", "reserve": 0}).train()
    assert now.state.global_step == 1


def test_a_stop_in_another_process_counts_at_the_end_of_the_epoch() -> None:
    loop = Loop(100, constant())
    loop.fire("on_train_begin")
    loop.control.requests = [
        {"flag": "should_training_stop", "by": "rank 1: TimeLimit", "step": 1, "reason": "x"}
    ]
    loop.control.should_evaluate = True
    loop.fire("on_epoch_end")
    assert not loop.control.should_evaluate


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Be in a job of Slurm that does not say when it ends."""
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    return monkeypatch


def test_a_job_of_slurm_has_its_limit_in_the_environment(slurm: pytest.MonkeyPatch) -> None:
    slurm.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 600))
    loop = Loop("slurm", constant(step=10, save=10)).train()
    assert 500 < loop.now < 600
    assert loop.saved == [loop.state.global_step]


@pytest.mark.parametrize("end", [None, "", "soon", "10"])
def test_a_job_of_slurm_without_a_time_to_come_is_refused(
    slurm: pytest.MonkeyPatch, end: str | None
) -> None:
    if end is not None:
        slurm.setenv("SLURM_JOB_END_TIME", end)
    with pytest.raises(ValueError, match="SLURM_JOB_END_TIME"):
        TimeLimit("slurm")


def test_the_end_of_a_job_of_slurm_has_no_other_beginning(slurm: pytest.MonkeyPatch) -> None:
    slurm.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 600))
    with pytest.raises(ValueError, match="since"):
        TimeLimit("slurm", since="process")


def test_outside_of_slurm_its_limit_is_none_and_that_is_told(
    slurm: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slurm.delenv("SLURM_JOB_ID")
    loop = Loop("slurm", constant(step=1e9), steps=20).train()
    assert loop.state.global_step == 20
    assert len(caplog.records) == 1
