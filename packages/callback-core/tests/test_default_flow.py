"""What the default flow asks for, step by step and epoch by epoch."""

from __future__ import annotations

from typing import Any

import pytest
from arguments_for_tests import Arguments

from callback_core import DefaultFlowCallback, TrainerControl, TrainerState
from callback_core.control import FLAGS

STEPS = {"logging_strategy": "steps", "eval_strategy": "steps", "save_strategy": "steps"}
EPOCHS = {"logging_strategy": "epoch", "eval_strategy": "epoch", "save_strategy": "epoch"}
NOTHING = {"logging_strategy": "no", "eval_strategy": "no", "save_strategy": "no"}
UNUSED = {"logging_steps": 100, "eval_steps": 100, "save_steps": 100}

FLAG_OF = {
    "logging_strategy": "should_log",
    "eval_strategy": "should_evaluate",
    "save_strategy": "should_save",
}

LAST = 6
END = {"should_training_stop": [LAST]}


def asked(event: str, **settings: Any) -> dict[str, list[int]]:
    """Return all that `event` asks for in six steps, two to an epoch: after which steps, by flag.

    Args:
        event: `on_step_end` or `on_epoch_end`.
        settings: Arguments and steps; without them, nothing is due.
    """
    flow, flags = DefaultFlowCallback(), {flag: list[int]() for flag in FLAGS}
    steps = {name: settings.pop(name, unused) for name, unused in UNUSED.items()}
    args = Arguments(**{**NOTHING, **settings})
    for step in range(1, LAST + 1):
        if event == "on_epoch_end" and step % 2:
            continue
        state = TrainerState(global_step=step, epoch=step / 2, max_steps=LAST, **steps)
        control = getattr(flow, event)(args, state, TrainerControl())
        for flag in FLAGS:
            if getattr(control, flag):
                flags[flag].append(step)
    return {flag: after for flag, after in flags.items() if after}


def asked_at_steps(**settings: Any) -> dict[str, list[int]]:
    return asked("on_step_end", **settings)


def asked_at_epochs(**settings: Any) -> dict[str, list[int]]:
    return asked("on_epoch_end", **settings)


def test_with_no_strategy_only_the_end_is_asked_for_at_the_last_step() -> None:
    assert asked_at_steps(**NOTHING) == END


def test_with_no_strategy_nothing_is_asked_for_at_the_end_of_an_epoch() -> None:
    assert asked_at_epochs(**NOTHING) == {}


@pytest.mark.parametrize(("every", "after"), [(2, [2, 4, 6]), (4, [4])])
def test_a_log_is_due_every_so_many_steps(every: int, after: list[int]) -> None:
    found = asked_at_steps(logging_strategy="steps", logging_steps=every)
    assert found == {"should_log": after, **END}


@pytest.mark.parametrize(("strategy", "after"), [("no", [1]), ("epoch", [1]), ("steps", [1, 4])])
def test_the_first_step_is_logged_where_that_is_wanted(strategy: str, after: list[int]) -> None:
    found = asked_at_steps(logging_first_step=True, logging_strategy=strategy, logging_steps=4)
    assert found == {"should_log": after, **END}


@pytest.mark.parametrize(("every", "after"), [(3, [3, 6]), (4, [4, 6])])
def test_an_evaluation_is_due_every_so_many_steps_and_at_the_last(
    every: int, after: list[int]
) -> None:
    found = asked_at_steps(eval_strategy="steps", eval_steps=every)
    assert found == {"should_evaluate": after, **END}


@pytest.mark.parametrize(("delay", "after"), [(3, [3, 6]), (4, [6])])
def test_with_steps_evaluation_waits_for_the_step_of_its_delay(
    delay: int, after: list[int]
) -> None:
    found = asked_at_steps(eval_strategy="steps", eval_steps=3, eval_delay=delay)
    assert found == {"should_evaluate": after, **END}


def test_the_last_step_is_not_evaluated_before_the_delay_is_over() -> None:
    assert asked_at_steps(eval_strategy="steps", eval_steps=3, eval_delay=LAST + 1) == END


def test_with_epochs_evaluation_waits_for_the_epoch_of_its_delay() -> None:
    found = asked_at_epochs(eval_strategy="epoch", eval_delay=2)
    assert found == {"should_evaluate": [4, 6]}


@pytest.mark.parametrize(("delay", "due"), [(0, True), (1, False)])
def test_an_epoch_without_a_number_is_evaluated_unless_there_is_a_delay(
    delay: int, due: bool
) -> None:
    args = Arguments(eval_strategy="epoch", eval_delay=delay)
    control = DefaultFlowCallback().on_epoch_end(args, TrainerState(epoch=None), TrainerControl())
    assert control.should_evaluate is due


@pytest.mark.parametrize(("every", "after"), [(1, [1, 2, 3, 4, 5, 6]), (4, [4, 6]), (0, [6])])
def test_a_checkpoint_is_due_every_so_many_steps_and_at_the_last(
    every: int, after: list[int]
) -> None:
    found = asked_at_steps(save_strategy="steps", save_steps=every)
    assert found == {"should_save": after, **END}


def test_with_steps_all_that_is_due_at_one_is_asked_for() -> None:
    assert asked_at_steps(**STEPS, logging_steps=2, eval_steps=3, save_steps=4) == {
        "should_log": [2, 4, 6],
        "should_evaluate": [3, 6],
        "should_save": [4, 6],
        **END,
    }


@pytest.mark.parametrize(("strategy", "flag"), FLAG_OF.items())
def test_with_epochs_what_the_strategy_is_about_is_due_at_the_end_of_each(
    strategy: str, flag: str
) -> None:
    assert asked_at_epochs(**{strategy: "epoch"}) == {flag: [2, 4, 6]}


def test_with_epochs_nothing_but_the_end_is_due_at_a_step() -> None:
    assert asked_at_steps(**EPOCHS, logging_steps=1, eval_steps=1, save_steps=1) == END


def test_with_steps_nothing_is_due_at_the_end_of_an_epoch() -> None:
    assert asked_at_epochs(**STEPS, logging_steps=1, eval_steps=1, save_steps=1) == {}


@pytest.mark.parametrize("steps", [0, None])
def test_steps_that_are_not_used_may_be_anything(steps: Any) -> None:
    assert asked_at_steps(logging_steps=steps, eval_steps=steps, save_steps=steps) == END
