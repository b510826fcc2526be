"""Patience: a training that gets no better is stopped when it was said to be, and not before."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from callback_contract._case import Case, Training
from callback_contract._rule import ContractViolation, require, rule
from callback_contract._stored import said

_MEND: Final = "Count evaluations no better than state.best_metric, and begin anew at a better one."


def _training(
    case: Case, patience: int, threshold: float = 0.0, callback: Any = None, **arguments: Any
) -> Training:
    usual = {"eval_strategy": "steps", "load_best_model_at_end": True}
    if callback is None:
        callback = case.subject.make_patient(case.output_dir, patience, threshold)
    training = case.training(callback, args=case.arguments(**{**usual, **arguments}))
    training.state.max_steps = 100
    return training


def _stops_at(training: Training, losses: Sequence[float], up: bool = False) -> int | None:
    """Return at which of `losses` the end is asked for; `None` where it is not.

    As loops do, the best is noted after the evaluation.
    """
    training.begin()
    for number, loss in enumerate(losses, 1):
        training.step({"loss": 0.5})
        training.fire("on_evaluate", metrics={"eval_loss": loss, "eval_runtime": 0.1})
        if training.control.should_training_stop:
            return number
        best = training.state.best_metric
        if loss == loss and (best is None or best != best or (loss > best if up else loss < best)):
            training.state.best_metric = loss
        elif best is None:
            training.state.best_metric = loss  # NaN, as a loop that compares notes it
    training.end()
    return None


def _require_stop(case: Case, losses: Sequence[float], at: int | None, **how: Any) -> None:
    patience, threshold = how.pop("patience", 2), how.pop("threshold", 0.0)
    training = _training(case, patience, threshold, **how)
    found = _stops_at(training, losses, bool(how.get("greater_is_better")))
    require(
        found == at,
        f"with patience {patience} and threshold {threshold}, of evaluations {[*losses]} it asked "
        f"for the end at number {found} and not {at}",
    )


@rule(
    "PAT-001",
    since=(1, 1),
    needs=["patience"],
    why="A patience that counts one more or one less stops at another checkpoint than what was "
    "compared (huggingface/transformers#28544).",
    mend=_MEND,
)
def stops_after_so_many_without_an_improvement(case: Case) -> None:
    """The end is asked for at the evaluation at which patience is used up, and not before."""
    _require_stop(case, (1.0, 2.0, 2.0, 2.0), 3, patience=2)
    _require_stop(case, (1.0, 1.0, 2.0), 2, patience=1)
    _require_stop(case, (1.0, 0.5, 0.25, 0.125), None, patience=1)


@rule(
    "PAT-002",
    since=(1, 1),
    needs=["patience"],
    why="Evaluations in a row are meant, and a metric that goes up and down gets better in between "
    "(transformers 5.23.0, early_stopping_patience).",
    mend="Set the count to 0 at an improvement.",
)
def an_improvement_begins_anew(case: Case) -> None:
    """An evaluation that is better than all before begins the count anew."""
    _require_stop(case, (1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25), 7, patience=2)


@rule(
    "PAT-003",
    since=(1, 1),
    needs=["patience"],
    why="A metric that creeps on by a millionth keeps a training going for nothing (transformers "
    "5.23.0, early_stopping_threshold).",
    mend="Compare the difference with the threshold, by > and not by >=.",
)
def an_improvement_is_more_than_the_threshold(case: Case) -> None:
    """What is better by the threshold or by less is no improvement; what is better by more is."""
    _require_stop(case, (1.0, 0.75, 0.5), 2, patience=1, threshold=0.25)
    _require_stop(case, (1.0, 0.5, 0.125), None, patience=1, threshold=0.25)


@rule(
    "PAT-004",
    since=(1, 1),
    needs=["patience"],
    why="Accuracy that goes up was taken for a loss that does not go down "
    "(scverse/scvi-tools#978).",
    mend="Ask args.greater_is_better which way is better.",
)
def better_is_what_the_arguments_say(case: Case) -> None:
    """With `greater_is_better`, more is better; without it, less is."""
    _require_stop(case, (0.25, 0.5, 0.75), None, patience=1, greater_is_better=True)
    _require_stop(case, (0.25, 0.125, 0.0625), 2, patience=1, greater_is_better=True)
    _require_stop(case, (1.0, 1.5, 3.0), 2, patience=1, threshold=1.0, greater_is_better=True)


@rule(
    "PAT-005",
    since=(1, 1),
    needs=["patience"],
    why="Every comparison with NaN is false, so that one that comes first is the best for ever, "
    "and the rest counts as worse or as better by chance (keras-team/keras#9462).",
    mend="Ask `value != value` of the metric, and of the best so far.",
)
def nan_is_no_improvement(case: Case) -> None:
    """NaN is no improvement, and any number is one on NaN."""
    _require_stop(case, (math.nan, math.nan, 1.0), 2, patience=2)
    _require_stop(case, (math.nan, 1.0, 0.5), None, patience=2)
    _require_stop(case, (1.0, math.nan, math.nan), 3, patience=2)


def _error(
    training: Training,
    losses: Sequence[Mapping[str, float]] = (),
    after: str = "on_step_end",
    goes_on: bool = True,
) -> str:
    """Return the message of the ValueError that a training ends by; nothing where it does not."""
    try:
        training.begin()
        for metrics in losses:
            training.step({"loss": 0.5})
            training.control.should_evaluate = True
            training.fire(after)
            for of_one in metrics if isinstance(metrics, tuple) else (metrics,):
                training.fire("on_evaluate", metrics=of_one)
        if goes_on:
            training.step({"loss": 0.5})
    except ContractViolation as violation:
        if not isinstance(violation.__cause__, ValueError):
            raise
        return str(violation.__cause__)
    return ""


@rule(
    "PAT-006",
    since=(1, 1),
    needs=["patience"],
    why="A patience of 0 stops at the first evaluation, which is found hours in; a setting that "
    "cannot be meant is an error when it is made (huggingface/transformers#28544).",
    mend="Raise a ValueError with the value in the constructor.",
)
def refuses_a_patience_that_cannot_be_meant(case: Case) -> None:
    """A patience below 1 and a negative threshold are a ValueError that names the value."""
    for patience, threshold, shown in ((0, 0.0, "0"), (-3, 0.0, "-3"), (1, -0.5, "-0.5")):
        try:
            case.subject.make_patient(case.output_dir, patience, threshold)
        except ValueError as error:
            named = "patience" in str(error) if threshold >= 0 else "threshold" in str(error)
            require(named and shown in str(error), f"the error does not name {shown}: {error}")
        else:
            raise ContractViolation(f"patience {patience} and threshold {threshold} are taken")
    case.subject.make_patient(case.output_dir, 1, 0.0)


@rule(
    "PAT-007",
    since=(1, 1),
    needs=["patience"],
    why="Without evaluations nothing ever stops, and nobody hears of it until the training is "
    "through (transformers 5.23.0, EarlyStoppingCallback).",
    mend="Ask in on_train_begin for metric_for_best_model and for an eval_strategy.",
)
def refuses_a_training_without_evaluations(case: Case) -> None:
    """A training without a metric to look at, or without evaluations, is a ValueError at once."""
    for name, value in (("metric_for_best_model", None), ("eval_strategy", "no")):
        changed: dict[str, Any] = {name: value}
        message = _error(_training(case, 2, **changed))
        require(name in message, f"with {name}={value!r} it says {message!r}")


@rule(
    "PAT-008",
    since=(1, 1),
    needs=["patience"],
    why="Who stops early means to have the best model, and gets the last one "
    "(huggingface/transformers#28544).",
    mend="Log a warning in on_train_begin where args.load_best_model_at_end is not set.",
)
def says_that_the_last_model_is_not_the_best(case: Case) -> None:
    """A warning says so where the best model is not loaded at the end, and none where it is."""
    for loads in (False, True):
        training = _training(case, 2, load_best_model_at_end=loads)
        with said() as lines:
            training.begin()
        training.end()
        warned = any("load_best_model_at_end" in line for line in lines)
        require(warned is not loads, f"with load_best_model_at_end={loads} it said {lines}")


@rule(
    "PAT-009",
    since=(1, 1),
    needs=["patience"],
    why="A name that is misspelt was a warning among a thousand lines, and the training never "
    "stopped (transformers 5.23.0, EarlyStoppingCallback).",
    mend="Raise a ValueError at the first evaluation that should have the metric and has not.",
)
def refuses_a_metric_that_never_comes(case: Case) -> None:
    """Where the loop's evaluations do not report the metric, that is a ValueError which names it.

    It names what is reported too. Of several data sets, any may have it.
    """
    reported = {"eval_loss": 0.5, "eval_runtime": 0.1}
    training = _training(case, 2, metric_for_best_model="accuracy")
    message = _error(training, [reported], goes_on=False)
    require("eval_accuracy" in message and "eval_loss" in message, f"it says {message!r}")
    sets: Any = ({"eval_one_loss": 1.0}, {"eval_two_loss": 1.0})
    message = _error(_training(case, 2, metric_for_best_model="accuracy"), [sets])
    named = all(name in message for name in ("eval_accuracy", "eval_one_loss", "eval_two_loss"))
    require(named, f"of two data sets it says {message!r}")
    message = _error(_training(case, 2, metric_for_best_model="one_loss"), [sets, sets])
    require(not message, f"where one of two data sets reports the metric, it says {message!r}")
    training = _training(case, 2, metric_for_best_model="accuracy")
    message = _error(training, [sets], after="on_epoch_end")
    require("eval_accuracy" in message, f"where epochs are evaluated, it says {message!r}")


@rule(
    "PAT-010",
    since=(1, 1),
    needs=["patience"],
    why="Other callbacks evaluate at their own steps, under their own names, and users do after "
    "the training; that ended trainings by an error (transformers 5.23.0).",
    mend="Judge only what the loop evaluates by itself, while the training goes on.",
)
def other_evaluations_need_not_have_the_metric(case: Case) -> None:
    """An evaluation on top, under other names, and one after the end, need not have the metric.

    Nor does one before the first step.
    """
    training = _training(case, 2, metric_for_best_model="accuracy")
    training.begin()
    training.fire("on_evaluate", metrics={"eval_probe_loss": 1.0})
    training.step({"loss": 0.5})
    training.fire("on_evaluate", metrics={"probe_loss": 1.0})
    training.step({"loss": 0.5})
    training.step({"loss": 0.5})
    training.fire("on_evaluate", metrics={"eval_accuracy": 0.5, "eval_loss": 1.0})
    training.step({"loss": 0.5})
    training.fire("on_evaluate", metrics={"eval_loss": 1.0})
    training.fire("on_evaluate")
    training.step({"loss": 0.5})
    training.end()
    training.fire("on_evaluate", metrics={"eval_loss": 1.0, "eval_runtime": 0.1})
    training = _training(case, 2, metric_for_best_model="accuracy")
    training.begin()
    training.end()
    training.fire("on_evaluate", metrics={"eval_loss": 1.0, "eval_runtime": 0.1})


@rule(
    "PAT-011",
    since=(1, 1),
    needs=["patience", "state"],
    why="A training that is resumed every few hours never runs out of patience where the count "
    "begins anew (huggingface/transformers#28544, huggingface/transformers#33875).",
    mend="Keep the count in the state, and take it over from there.",
)
def a_resumed_training_has_the_patience_that_is_left(case: Case) -> None:
    """The count goes on where the checkpoint has it: a resumed training stops as it would have."""
    first = case.subject.make_patient(case.output_dir, 3, 0.0)
    training = _training(case, 3, callback=first)
    require(_stops_at(training, (1.0, 2.0, 2.0)) is None, "it stopped too early")
    second = case.subject.make_patient(case.output_dir, 3, 0.0)
    if callable(getattr(first, "state_dict", None)):
        second.load_state_dict(first.state_dict())
    else:
        state = first.state()
        require(state["args"], "its state does not say how it was made")
        second = type(second)(**state["args"])
        for name, value in state["attributes"].items():
            setattr(second, name, value)
    training = _training(case, 3, callback=second)
    training.state.best_metric = 1.0
    found = _stops_at(training, (2.0, 2.0))
    require(found == 1, f"after 2 of 3 evaluations, it stopped at number {found} of the rest")


@rule(
    "PAT-012",
    since=(1, 1),
    needs=["patience", "reasons"],
    why="Who stopped a training, and at which metric, is asked for in every framework "
    "(keras-team/keras#12052, Lightning-AI/pytorch-lightning#21188).",
    mend="Name the metric, how many evaluations, and the best value in the reason.",
)
def says_which_metric_did_not_improve(case: Case) -> None:
    """The reason names the metric, how often it did not improve, and its best value."""
    for metric, patience in (("loss", 2), ("eval_loss", 1)):
        training = _training(case, patience, metric_for_best_model=metric)
        _stops_at(training, (0.5, 1.0, 1.0))
        stops = [r for r in training.control.requests if r.flag == "should_training_stop"]
        reason = str(stops[0].reason) if stops else ""
        counted = rf"\b{patience} evaluation{'s' * (patience > 1)}\b"
        whole = re.search(counted, reason) and "eval_loss" in reason and "0.5" in reason
        require(whole and "eval_eval" not in reason, f"the reason is {reason!r}")
    training = _training(case, 1)
    _stops_at(training, (math.nan, 1.0))
    stops = [r for r in training.control.requests if r.flag == "should_training_stop"]
    require(stops and "none" in str(stops[0].reason), f"without a best value, it says {stops}")
