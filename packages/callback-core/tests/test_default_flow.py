"""What the default flow asks for, step by step and epoch by epoch."""

from __future__ import annotations

from typing import Any

import pytest
from arguments_for_tests import Arguments

from callback_core import DefaultFlowCallback, TrainerControl, TrainerState

STEPS = {"logging_strategy": "steps", "eval_strategy": "steps", "save_strategy": "steps"}
EPOCHS = {"logging_strategy": "epoch", "eval_strategy": "epoch", "save_strategy": "epoch"}
NOTHING = {"logging_strategy": "no", "eval_strategy": "no", "save_strategy": "no"}


def asked_at_step(step: int, **args: Any) -> TrainerControl:
    state = TrainerState(
        global_step=step, max_steps=11, logging_steps=2, eval_steps=4, save_steps=8
    )
    return DefaultFlowCallback().on_step_end(Arguments(**args), state, TrainerControl())


def asked_at_epoch(epoch: float, **args: Any) -> TrainerControl:
    return DefaultFlowCallback().on_epoch_end(
        Arguments(**args), TrainerState(epoch=epoch), TrainerControl()
    )


@pytest.mark.parametrize(
    ("step", "asked"),
    [
        (1, TrainerControl()),
        (2, TrainerControl(should_log=True)),
        (4, TrainerControl(should_log=True, should_evaluate=True)),
        (8, TrainerControl(should_log=True, should_evaluate=True, should_save=True)),
        (11, TrainerControl(should_evaluate=True, should_save=True, should_training_stop=True)),
    ],
)
def test_with_steps_each_is_due_at_its_multiples_and_the_last_step_is_evaluated_and_saved(
    step: int, asked: TrainerControl
) -> None:
    assert asked_at_step(step, **STEPS) == asked


def test_the_first_step_is_logged_where_that_is_wanted() -> None:
    assert asked_at_step(1, logging_first_step=True, **NOTHING) == TrainerControl(should_log=True)


def test_evaluation_waits_for_its_delay_counted_as_the_strategy_counts() -> None:
    assert not asked_at_step(4, eval_delay=5, **STEPS).should_evaluate
    assert asked_at_step(8, eval_delay=5, **STEPS).should_evaluate
    assert not asked_at_epoch(1.0, eval_delay=2, **EPOCHS).should_evaluate
    assert asked_at_epoch(2.0, eval_delay=2, **EPOCHS).should_evaluate


def test_with_epochs_all_is_due_at_the_end_of_one_and_nothing_at_a_step() -> None:
    assert asked_at_epoch(1.0, **EPOCHS) == TrainerControl(
        should_log=True, should_evaluate=True, should_save=True
    )
    assert asked_at_step(8, **EPOCHS) == TrainerControl()


def test_with_no_strategy_only_the_end_is_asked_for() -> None:
    assert asked_at_step(8, **NOTHING) == asked_at_epoch(1.0, **NOTHING) == TrainerControl()
    assert asked_at_step(11, **NOTHING) == TrainerControl(should_training_stop=True)


@pytest.mark.parametrize("steps", [0, None])
def test_steps_that_are_not_used_may_be_anything(steps: Any) -> None:
    state = TrainerState(
        global_step=1, max_steps=9, logging_steps=steps, eval_steps=steps, save_steps=steps
    )
    flow = DefaultFlowCallback()
    assert flow.on_step_end(Arguments(**NOTHING), state, TrainerControl()) == TrainerControl()
