"""When training is asked to stop, and what must be there for it."""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
from arguments_for_tests import Arguments

from callback_core import EarlyStoppingCallback, TrainerControl, TrainerState


def arguments(**changed: Any) -> Arguments:
    return Arguments(
        **{
            "eval_strategy": "steps",
            "load_best_model_at_end": True,
            "metric_for_best_model": "loss",
            "greater_is_better": False,
            **changed,
        }
    )


def stops_at(values: list[float], callback: EarlyStoppingCallback, **changed: Any) -> int | None:
    """Return after how many evaluations with these values the callback asks to stop."""
    args, state, control = arguments(**changed), TrainerState(), TrainerControl()
    callback.on_train_begin(args, state, control)
    for number, value in enumerate(values, start=1):
        callback.on_evaluate(args, state, control, metrics={"eval_loss": value})
        if control.should_training_stop:
            return number
        better = state.best_metric is None or (
            value > state.best_metric if args.greater_is_better else value < state.best_metric
        )
        state.best_metric = value if better else state.best_metric
    return None


def test_the_defaults_are_the_page_s() -> None:
    callback = EarlyStoppingCallback()
    assert (callback.early_stopping_patience, callback.early_stopping_threshold) == (1, 0.0)


@pytest.mark.parametrize(("patience", "stop"), [(1, 3), (2, 6), (3, 7)])
def test_it_stops_after_patience_evaluations_in_a_row_without_improvement(
    patience: int, stop: int
) -> None:
    values = [1.0, 0.5, 0.6, 0.4, 0.4, 0.7, 0.8]
    assert stops_at(values, EarlyStoppingCallback(early_stopping_patience=patience)) == stop


def test_an_improvement_within_the_threshold_does_not_count() -> None:
    assert stops_at([1.0, 0.95], EarlyStoppingCallback(early_stopping_threshold=0.1)) == 2
    assert stops_at([1.0, 0.85], EarlyStoppingCallback(early_stopping_threshold=0.1)) is None


def test_greater_is_better_turns_the_comparison_round() -> None:
    assert stops_at([0.5, 0.6, 0.5], EarlyStoppingCallback(), greater_is_better=True) == 3


def test_nan_is_no_improvement() -> None:
    assert stops_at([1.0, math.nan], EarlyStoppingCallback()) == 2
    assert stops_at([math.nan, math.nan], EarlyStoppingCallback(early_stopping_patience=2)) == 2


def test_the_reason_says_which_metric_and_for_how_long() -> None:
    control = TrainerControl()
    callback = EarlyStoppingCallback()
    callback.on_evaluate(
        arguments(), TrainerState(best_metric=0.25), control, metrics={"eval_loss": 0.5}
    )
    assert control.requests[0].reason == "eval_loss has not improved for 1 evaluation (best: 0.25)"


def test_the_reason_shows_a_great_best_value_in_full() -> None:
    control = TrainerControl()
    callback = EarlyStoppingCallback(early_stopping_patience=2)
    for value in (24100.5, 24200.0):
        state = TrainerState(best_metric=24100.25)
        callback.on_evaluate(arguments(), state, control, metrics={"eval_loss": value})
    assert control.requests[0].reason == (
        "eval_loss has not improved for 2 evaluations (best: 24100.2)"
    )


def test_another_evaluation_s_metrics_are_not_counted() -> None:
    control = TrainerControl()
    EarlyStoppingCallback().on_evaluate(
        arguments(), TrainerState(best_metric=0.1), control, metrics={"eval_b_loss": 9.0}
    )
    assert not control.should_training_stop


def train(*rounds: list[list[str]], asked: bool = True, **changed: Any) -> None:
    """Train for some steps, with some evaluations after each that report metrics of these names.

    Args:
        rounds: The evaluations of each step.
        asked: Whether the loop is asked for them; else it is a callback that evaluates.
        changed: Arguments instead of the usual ones.
    """
    args, state, control = arguments(**changed), TrainerState(), TrainerControl()
    callback = EarlyStoppingCallback()
    callback.on_train_begin(args, state, control)
    for evaluations in rounds:
        callback.on_step_end(args, state, TrainerControl(should_evaluate=asked))
        for names in evaluations:
            callback.on_evaluate(args, state, control, metrics=dict.fromkeys(names, 0.5))
    callback.on_epoch_end(args, state, TrainerControl())
    callback.on_train_end(args, state, control)


A, B = ["eval_a_loss", "eval_a_runtime"], ["eval_b_loss", "eval_b_runtime"]


@pytest.mark.parametrize("always_there", ["eval_loss", "eval_runtime"])
def test_a_metric_that_never_comes_is_an_error_at_the_first_evaluation(always_there: str) -> None:
    with pytest.raises(ValueError) as error:
        train([["eval_f1", always_there]], metric_for_best_model="accuracy")
    assert str(error.value) == (
        "EarlyStoppingCallback never sees its metric: no evaluation reports 'eval_accuracy'. "
        f"Reported are: {', '.join(sorted(['eval_f1', always_there]))}. Set metric_for_best_model "
        "to one of them, or return 'accuracy' from compute_metrics."
    )


def test_a_metric_that_none_of_several_datasets_has_is_an_error_once_all_were_evaluated() -> None:
    with pytest.raises(ValueError, match="eval_a_loss, eval_a_runtime, eval_b_loss"):
        train([A, B], metric_for_best_model="loss")


def test_the_metric_may_be_that_of_any_of_several_datasets() -> None:
    train([A, B], [A, B], metric_for_best_model="eval_a_loss")
    train([A, B], [A, B], metric_for_best_model="b_loss")


def test_evaluations_of_something_else_need_not_have_the_metric() -> None:
    main, other = ["eval_loss"], ["eval_other_loss", "eval_other_runtime"]
    train([["test_loss"], ["test_loss"], main])
    train([other, other, main])
    train([main, other, other], [other, main])
    train([other], [other], [other], asked=False)


def test_evaluations_before_training_need_not_have_the_metric() -> None:
    EarlyStoppingCallback().on_evaluate(
        arguments(metric_for_best_model="accuracy"),
        TrainerState(),
        TrainerControl(),
        metrics={"eval_loss": 0.5},
    )


def test_a_metric_that_is_none_is_not_there() -> None:
    callback, control = EarlyStoppingCallback(), TrainerControl()
    callback.on_train_begin(arguments(), TrainerState(), control)
    with pytest.raises(ValueError, match="Reported are: eval_runtime"):
        callback.on_evaluate(
            arguments(), TrainerState(), control, metrics={"eval_loss": None, "eval_runtime": 1.0}
        )


def test_a_number_is_an_improvement_on_nan() -> None:
    callback = EarlyStoppingCallback(2)
    for value in (0.5, 0.4):
        callback.check_metric_value(
            arguments(), TrainerState(best_metric=math.nan), TrainerControl(), value
        )
        assert callback.early_stopping_patience_counter == 0


def test_after_training_an_evaluation_may_report_what_it_likes() -> None:
    args, state, control = arguments(), TrainerState(), TrainerControl()
    callback = EarlyStoppingCallback()
    callback.on_train_begin(args, state, control)
    callback.on_train_end(args, state, control)
    callback.on_evaluate(args, state, control, metrics={"eval_runtime": 0.5})


def test_its_value_check_and_its_state_are_transformers_own() -> None:
    callback = EarlyStoppingCallback(early_stopping_patience=3, early_stopping_threshold=0.1)
    state, control = TrainerState(best_metric=0.5), TrainerControl()
    for value in (0.5, 0.45):
        callback.check_metric_value(arguments(), state, control, value)
    assert callback.state() == {
        "args": {"early_stopping_patience": 3, "early_stopping_threshold": 0.1},
        "attributes": {"early_stopping_patience_counter": 2},
    }
    callback.check_metric_value(arguments(), state, control, 0.35)
    assert callback.early_stopping_patience_counter == 0
    assert not control.should_training_stop


def test_it_stops_a_trainer_whose_control_keeps_no_reasons() -> None:
    control = SimpleNamespace(should_training_stop=False)  # as transformers' is
    state = TrainerState(best_metric=0.25)
    EarlyStoppingCallback().on_evaluate(arguments(), state, control, metrics={"eval_loss": 0.5})
    assert control.should_training_stop


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metric_for_best_model": None}, "set metric_for_best_model"),
        ({"eval_strategy": "no"}, "eval_strategy is 'no'"),
    ],
)
def test_training_without_a_metric_to_look_at_is_an_error_when_it_begins(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        EarlyStoppingCallback().on_train_begin(
            arguments(**changed), TrainerState(), TrainerControl()
        )


def test_training_without_loading_the_best_model_is_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        args = arguments(load_best_model_at_end=False)
        EarlyStoppingCallback().on_train_begin(args, TrainerState(), TrainerControl())
    assert "the model will be the last one" in caplog.text


@pytest.mark.parametrize(
    "wrong", [{"early_stopping_patience": 0}, {"early_stopping_threshold": -0.1}]
)
def test_a_wrong_argument_is_an_error_at_construction(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EarlyStoppingCallback(**wrong)
