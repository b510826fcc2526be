"""When training is asked to stop, and what must be there for it."""

from __future__ import annotations

import logging
import math
import re
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from arguments_for_tests import Arguments

from callback_core import EarlyStoppingCallback, TrainerControl, TrainerState
from callback_core.persistence import export_states, restore_states

NAN = math.nan


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


def stops_at(
    values: list[float],
    callback: EarlyStoppingCallback,
    state: TrainerState | None = None,
    **changed: Any,
) -> int | None:
    """Train a step for each value, which its evaluation reports; return the step of a stop.

    `state` is where the training begins. The best value is noted after an evaluation, as loops do.
    """
    args, state, control = arguments(**changed), state or TrainerState(), TrainerControl()
    callback.on_train_begin(args, state, control)
    for value in values:
        state.global_step += 1
        callback.on_step_end(args, state, TrainerControl(should_evaluate=True))
        callback.on_evaluate(args, state, control, metrics={"eval_loss": value})
        if control.should_training_stop:
            return state.global_step
        better = state.best_metric is None or (
            value > state.best_metric if args.greater_is_better else value < state.best_metric
        )
        state.best_metric = value if better else state.best_metric
    return None


def test_the_defaults_are_the_page_s() -> None:
    callback = EarlyStoppingCallback()
    assert (callback.early_stopping_patience, callback.early_stopping_threshold) == (1, 0.0)


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_it_stops_once_patience_evaluations_in_a_row_are_no_improvement(patience: int) -> None:
    values = [1.0, 0.5, 0.5, 0.7, 0.6, 0.7]
    assert stops_at(values, EarlyStoppingCallback(patience)) == 2 + patience


@pytest.mark.parametrize(("patience", "stop"), [(1, 3), (2, 6), (3, 7)])
def test_an_improvement_lets_patience_begin_again(patience: int, stop: int) -> None:
    values = [1.0, 0.5, 0.6, 0.4, 0.4, 0.7, 0.8]
    assert stops_at(values, EarlyStoppingCallback(patience)) == stop


def test_a_training_that_improves_is_not_stopped() -> None:
    assert stops_at([1.0, 0.5, 0.25, 0.125], EarlyStoppingCallback()) is None


@pytest.mark.parametrize(
    ("values", "greater", "stop"),
    [
        ([1.0, 0.75, 0.5], False, 2),
        ([1.0, 0.5, 0.125], False, None),
        ([1.0, 1.25, 1.5], True, 2),
        ([1.0, 1.5, 2.0], True, None),
    ],
)
def test_an_improvement_is_one_by_more_than_the_threshold(
    values: list[float], greater: bool, stop: int | None
) -> None:
    callback = EarlyStoppingCallback(early_stopping_threshold=0.25)
    assert stops_at(values, callback, greater_is_better=greater) == stop


@pytest.mark.parametrize(
    ("values", "stop"), [([0.25, 0.5, 0.75], None), ([0.25, 0.5, 0.25], 3), ([0.25, 0.125], 2)]
)
def test_greater_is_better_turns_the_comparison_round(
    values: list[float], stop: int | None
) -> None:
    assert stops_at(values, EarlyStoppingCallback(), greater_is_better=True) == stop


@pytest.mark.parametrize("greater", [True, False])
@pytest.mark.parametrize(
    ("values", "stop"),
    [([1.0, NAN, NAN], 3), ([NAN, NAN, 1.0], 2), ([NAN, 1.0, NAN], None)],
)
def test_nan_is_no_improvement_and_any_number_is_one_on_nan(
    values: list[float], stop: int | None, greater: bool
) -> None:
    assert stops_at(values, EarlyStoppingCallback(2), greater_is_better=greater) == stop


def test_a_training_that_is_resumed_stops_at_the_step_at_which_it_would_have(
    tmp_path: Path,
) -> None:
    checkpoint = tmp_path / "trainer_state.json"
    callback, state = EarlyStoppingCallback(3), TrainerState()
    assert stops_at([1.0, 2.0, 2.0], callback, state) is None
    state.stateful_callbacks = export_states([callback], {})
    state.save_to_json(checkpoint)
    callback, state = EarlyStoppingCallback(3), TrainerState.load_from_json(checkpoint)
    restore_states([callback], state.stateful_callbacks)
    assert stops_at([2.0, 2.0], callback, state) == 4


BEFORE, AFTER, NEVER = "before", "after", "never"


@pytest.mark.parametrize("when", [BEFORE, AFTER, NEVER])
@pytest.mark.parametrize("greater", [True, False])
def test_it_stops_whenever_the_loop_notes_the_best_value(when: str, greater: bool) -> None:
    args, state, control = arguments(greater_is_better=greater), TrainerState(), TrainerControl()
    callback, sign = EarlyStoppingCallback(2), -1 if greater else 1
    callback.on_train_begin(args, state, control)
    counts, best = [], math.inf
    for value in (1.0, 2.0, 0.5, 0.75, 0.625):
        state.global_step += 1
        best = min(best, value)
        state.best_metric = sign * best if when == BEFORE else state.best_metric
        callback.on_evaluate(args, state, control, metrics={"eval_loss": sign * value})
        counts.append(callback.early_stopping_patience_counter)
        state.best_metric = sign * best if when == AFTER else state.best_metric
    assert counts == [0, 1, 0, 1, 2]
    assert control.should_training_stop
    assert callback.best_metric == sign * 0.5


def test_the_best_value_of_a_checkpoint_of_transformers_is_that_of_its_state() -> None:
    callback, state = EarlyStoppingCallback(1), TrainerState(global_step=5, best_metric=0.25)
    restore_states([callback], {"EarlyStoppingCallback": {"args": {}, "attributes": {}}})
    assert stops_at([0.5], callback, state) == 6


def test_a_resumed_training_knows_the_best_value_that_the_loop_does_not() -> None:
    saved, resumed = EarlyStoppingCallback(2), EarlyStoppingCallback(2)
    saved.on_evaluate(arguments(), TrainerState(global_step=1), TrainerControl(), {"eval_loss": 1})
    restore_states([resumed], export_states([saved], {}))
    args, state, control = arguments(), TrainerState(global_step=1), TrainerControl()
    resumed.on_train_begin(args, state, control)
    for _ in range(2):
        state.global_step += 1
        resumed.on_evaluate(args, state, control, {"eval_loss": 2.0})
    assert control.should_training_stop


def test_a_second_training_begins_without_count_and_best_value() -> None:
    callback = EarlyStoppingCallback(2)
    assert stops_at([0.1, 0.2], callback) is None
    assert stops_at([0.9, 0.8, 0.7], callback) is None


def test_a_second_evaluation_at_a_step_does_not_use_up_the_patience() -> None:
    args, state, control = arguments(), TrainerState(global_step=5), TrainerControl()
    callback = EarlyStoppingCallback(1)
    callback.on_train_begin(args, state, control)
    for _ in range(3):
        callback.on_evaluate(args, state, control, {"eval_loss": 0.5})
    assert not control.should_training_stop


def reason_to_stop(*values: float, best: float | None = None, metric: str = "loss") -> str:
    """Return why a training is stopped whose last evaluations have these values."""
    callback, control = EarlyStoppingCallback(len(values)), TrainerControl()
    args, state = arguments(metric_for_best_model=metric), TrainerState(best_metric=best)
    for value in values:
        callback.on_evaluate(args, state, control, metrics={"eval_loss": value})
    (request,) = control.requests
    return str(request.reason)


def numbers(text: str) -> list[str]:
    return re.findall(r"-?\d+(?:\.\d+)?", text)


@pytest.mark.parametrize("metric", ["loss", "eval_loss"])
def test_the_reason_names_the_metric_as_evaluations_report_it(metric: str) -> None:
    assert re.findall(r"\w*loss\w*", reason_to_stop(0.5, best=0.25, metric=metric)) == ["eval_loss"]


@pytest.mark.parametrize("evaluations", [1, 2])
def test_the_reason_says_for_how_many_evaluations_and_the_best_value(evaluations: int) -> None:
    assert numbers(reason_to_stop(*[0.5] * evaluations, best=0.25)) == [f"{evaluations}", "0.25"]


def test_the_reason_shows_a_great_best_value_in_full() -> None:
    assert numbers(reason_to_stop(24200.0, best=24100.25)) == ["1", "24100.2"]


def test_the_reason_shows_no_best_value_where_there_is_none() -> None:
    assert numbers(reason_to_stop(NAN, best=None)) == ["1"]


def test_another_evaluation_s_metrics_are_not_counted() -> None:
    control = TrainerControl()
    EarlyStoppingCallback().on_evaluate(
        arguments(), TrainerState(best_metric=0.1), control, metrics={"eval_b_loss": 9.0}
    )
    assert not control.should_training_stop


def train(
    *rounds: list[list[str]],
    asked: bool = True,
    by: str = "step",
    ends: bool = True,
    **changed: Any,
) -> None:
    """Train, with some evaluations after each step or epoch that report metrics of these names.

    Args:
        rounds: The evaluations of each step or epoch.
        asked: Whether the loop is asked for them; else it is a callback that evaluates.
        by: `step` or `epoch`.
        ends: Whether the training goes on to its end after them.
        changed: Arguments instead of the usual ones.
    """
    args, state, control = arguments(**changed), TrainerState(), TrainerControl()
    callback = EarlyStoppingCallback()
    end_of_round = {"step": callback.on_step_end, "epoch": callback.on_epoch_end}[by]
    callback.on_train_begin(args, state, control)
    for evaluations in rounds:
        end_of_round(args, state, TrainerControl(should_evaluate=asked))
        for names in evaluations:
            callback.on_evaluate(args, state, control, metrics=dict.fromkeys(names, 0.5))
    if ends:
        end_of_round(args, state, TrainerControl())
        callback.on_train_end(args, state, control)


def names_in(error: pytest.ExceptionInfo[ValueError]) -> set[str]:
    """Return the words of the message, among which are the names of metrics and arguments."""
    return set(re.findall(r"\w+", str(error.value)))


A, B = ["eval_a_loss", "eval_a_runtime"], ["eval_b_loss", "eval_b_runtime"]
MAIN, OTHER = ["eval_loss"], ["eval_other_loss", "eval_other_runtime"]


@pytest.mark.parametrize("always_there", ["eval_loss", "eval_runtime"])
def test_a_metric_that_never_comes_is_an_error_at_the_first_evaluation(always_there: str) -> None:
    with pytest.raises(ValueError) as error:
        train([["eval_f1", always_there]], metric_for_best_model="accuracy", ends=False)
    assert {"eval_accuracy", "eval_f1", always_there} <= names_in(error)


@pytest.mark.parametrize("by", ["step", "epoch"])
def test_a_metric_that_none_of_several_datasets_has_is_an_error_once_all_were_evaluated(
    by: str,
) -> None:
    with pytest.raises(ValueError) as error:
        train([A, B], metric_for_best_model="accuracy", by=by)
    assert {"eval_accuracy", *A, *B} <= names_in(error)


@pytest.mark.parametrize("metric", ["eval_a_loss", "b_loss"])
def test_the_metric_may_be_that_of_any_of_several_datasets(metric: str) -> None:
    train([A, B], [A, B], metric_for_best_model=metric)


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param([[["test_loss"], ["test_loss"], MAIN]], id="under another prefix"),
        pytest.param([[OTHER, OTHER, MAIN]], id="before the loop's own"),
        pytest.param([[MAIN, OTHER, OTHER], [OTHER, MAIN]], id="after the loop's own"),
        pytest.param([[MAIN], [["eval_runtime"]]], id="without the metric, after one with it"),
    ],
)
def test_evaluations_of_something_else_need_not_have_the_metric(rounds: Any) -> None:
    train(*rounds)


def test_evaluations_that_the_loop_was_not_asked_for_need_not_have_the_metric() -> None:
    train([OTHER], [OTHER], [OTHER], asked=False)


def test_an_evaluation_before_the_first_step_need_not_have_the_metric() -> None:
    callback, args, state = EarlyStoppingCallback(), arguments(), TrainerState()
    callback.on_train_begin(args, state, TrainerControl())
    callback.on_evaluate(args, state, TrainerControl(), metrics={"eval_other_loss": 0.5})
    callback.on_step_end(args, state, TrainerControl())


def test_an_evaluation_without_metrics_is_not_counted() -> None:
    control = TrainerControl()
    EarlyStoppingCallback().on_evaluate(arguments(), TrainerState(best_metric=0.1), control)
    assert not control.should_training_stop


def test_evaluations_before_training_need_not_have_the_metric() -> None:
    EarlyStoppingCallback().on_evaluate(
        arguments(metric_for_best_model="accuracy"),
        TrainerState(),
        TrainerControl(),
        metrics={"eval_loss": 0.5},
    )


def test_a_metric_that_is_none_is_not_there() -> None:
    callback, args = EarlyStoppingCallback(), arguments(metric_for_best_model="accuracy")
    metrics: Any = {"eval_accuracy": None, "eval_f1": None, "eval_runtime": 1.0}
    callback.on_train_begin(args, TrainerState(), TrainerControl())
    with pytest.raises(ValueError) as error:
        callback.on_evaluate(args, TrainerState(), TrainerControl(), metrics=metrics)
    assert "eval_f1" not in names_in(error)


def test_after_training_an_evaluation_may_report_what_it_likes() -> None:
    args, state, control = arguments(), TrainerState(), TrainerControl()
    callback = EarlyStoppingCallback()
    callback.on_train_begin(args, state, control)
    callback.on_train_end(args, state, control)
    callback.on_evaluate(args, state, control, metrics={"eval_runtime": 0.5})


def test_its_value_check_and_its_state_are_transformers_own_and_the_best_value() -> None:
    callback = EarlyStoppingCallback(early_stopping_patience=3, early_stopping_threshold=0.1)
    state, control = TrainerState(best_metric=0.5), TrainerControl()
    for value in (0.5, 0.45):
        callback.check_metric_value(arguments(), state, control, value)
    assert callback.state() == {
        "args": {"early_stopping_patience": 3, "early_stopping_threshold": 0.1},
        "attributes": {"early_stopping_patience_counter": 2, "best_metric": 0.45},
    }
    callback.check_metric_value(arguments(), state, control, 0.35)
    assert callback.early_stopping_patience_counter == 0
    assert not control.should_training_stop


def test_it_stops_a_trainer_whose_control_keeps_no_reasons() -> None:
    control: Any = SimpleNamespace(should_training_stop=False)  # as transformers' is
    state = TrainerState(best_metric=0.25)
    EarlyStoppingCallback().on_evaluate(arguments(), state, control, metrics={"eval_loss": 0.5})
    assert control.should_training_stop


@pytest.mark.parametrize(
    ("name", "value"), [("metric_for_best_model", None), ("eval_strategy", "no")]
)
def test_training_without_a_metric_to_look_at_is_an_error_when_it_begins(
    name: str, value: Any
) -> None:
    args = arguments(**{name: value})
    with pytest.raises(ValueError) as error:
        EarlyStoppingCallback().on_train_begin(args, TrainerState(), TrainerControl())
    assert name in names_in(error)


@pytest.mark.parametrize(("loads", "warned"), [(True, []), (False, [(logging.WARNING, True)])])
def test_training_without_loading_the_best_model_is_warned_about_once(
    loads: bool, warned: list[tuple[int, bool]], caplog: pytest.LogCaptureFixture
) -> None:
    args = arguments(load_best_model_at_end=loads)
    EarlyStoppingCallback().on_train_begin(args, TrainerState(), TrainerControl())
    assert [
        (record.levelno, "load_best_model_at_end" in record.getMessage())
        for record in caplog.records
    ] == warned


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("early_stopping_patience", 0),
        ("early_stopping_patience", -3),
        ("early_stopping_threshold", -0.5),
    ],
)
def test_a_number_out_of_range_is_an_error_at_construction_that_names_it(
    name: str, wrong: Any
) -> None:
    with pytest.raises(ValueError) as error:
        EarlyStoppingCallback(**{name: wrong})
    assert name in names_in(error)
    assert str(wrong) in numbers(str(error.value))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("early_stopping_patience", "3"),
        ("early_stopping_patience", 2.5),
        ("early_stopping_patience", None),
        ("early_stopping_patience", True),
        ("early_stopping_patience", math.inf),
        ("early_stopping_threshold", "0.1"),
        ("early_stopping_threshold", math.nan),
    ],
)
def test_what_is_no_number_is_an_error_at_construction_that_names_it(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError) as error:
        EarlyStoppingCallback(**{name: wrong})
    assert name in str(error.value)
    assert repr(wrong) in str(error.value)


def test_numbers_of_numpy_and_whole_floats_are_accepted() -> None:
    assert EarlyStoppingCallback(2.0).early_stopping_patience == 2  # type: ignore[arg-type]
    assert EarlyStoppingCallback(3, Fraction(1, 10)).early_stopping_threshold == Fraction(1, 10)  # type: ignore[arg-type]


def test_a_training_that_is_not_resumed_starts_the_count_afresh() -> None:
    callback = EarlyStoppingCallback(3)
    callback.early_stopping_patience_counter = 2
    callback.on_train_begin(arguments(), TrainerState(global_step=5), TrainerControl())
    assert callback.early_stopping_patience_counter == 2
    callback.on_train_begin(arguments(), TrainerState(), TrainerControl())
    assert callback.early_stopping_patience_counter == 0


def test_a_misspelt_metric_is_an_error_that_names_the_nearest() -> None:
    callback = EarlyStoppingCallback(3)
    args = arguments(metric_for_best_model="acuracy")
    callback.on_train_begin(args, TrainerState(), TrainerControl())
    metrics = {"eval_loss": 0.5, "eval_accuracy": 0.5, "eval_runtime": 1.0}
    with pytest.raises(ValueError, match=r"acuracy.*'eval_accuracy'"):
        callback.on_evaluate(args, TrainerState(), TrainerControl(), metrics=metrics)
