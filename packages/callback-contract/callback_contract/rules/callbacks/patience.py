"""Patience: a training that no longer improves stops at the right evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from callback_contract._case import Case
from callback_contract._registry import rule
from callback_contract._training import OUT_OF_MEMORY, Training
from callback_contract._violation import require

_patience_rule = partial(rule, needs=("patience",))

_FIX = "Count the evaluations in a row without an improvement, and stop when they reach `patience`."


def _evaluate(training: Training, losses: Sequence[float]) -> int | None:
    """Evaluate these losses, and return the number of the one that stops the training, from 1."""
    for number, loss in enumerate(losses, 1):
        training.step({"loss": 0.5}, evaluates=True)
        training.evaluate({"eval_loss": loss, "eval_runtime": 0.1})
        if training.control.should_training_stop:
            return number
    return None


def _begin(case: Case, patience: int, threshold: float) -> Training:
    callback = case.subject.make_patient(case.output_dir, patience, threshold)
    training = case.begin(callback, max_steps=100)
    training.fire("on_epoch_begin")
    return training


def _require_stop(
    case: Case,
    losses: Sequence[float],
    expected: int | None,
    patience: int = 2,
    threshold: float = 0.0,
) -> None:
    training = _begin(case, patience, threshold)
    stopped_at = _evaluate(training, losses)
    training.end()
    require(
        stopped_at == expected,
        f"with patience {patience}, threshold {threshold} and the losses {losses}, it stopped the "
        f"training at evaluation {stopped_at}, not {expected}",
    )


@_patience_rule(
    "PAT-001",
    why="The usual mistake is to stop one evaluation too early or too late "
    "(keras-team/keras#8100).",
    fix=_FIX,
)
def stops_when_patience_is_exhausted(case: Case) -> None:
    """The training stops at the evaluation that exhausts the patience, and not before."""
    for patience in (1, 2, 3):
        _require_stop(case, [1.0] * (patience + 2), patience + 1, patience=patience)


@_patience_rule(
    "PAT-002",
    why="Evaluations without an improvement were counted over the whole training instead of in a "
    "row (keras-team/keras#9462).",
    fix=_FIX,
)
def an_improvement_resets_the_count(case: Case) -> None:
    """An evaluation that is better than all earlier ones resets the count.

    The best value may be 0 or negative.
    """
    _require_stop(case, [1.0, 1.1, 0.9, 1.0, 0.0, 0.5, 0.25, 0.2], 7)
    _require_stop(case, [-1.0, -0.5, -2.0, -1.5, -1.9, -1.8], 5)


@_patience_rule(
    "PAT-003",
    why="A threshold that is added instead of subtracted makes every value an improvement "
    "(HomericIntelligence/Odyssey#1992).",
    fix="Count only values that beat the best one by more than the threshold as improvements.",
)
def an_improvement_exceeds_the_threshold(case: Case) -> None:
    """A value is an improvement only if it is better by more than the threshold."""
    _require_stop(case, [1.0, 0.95, 0.9, 0.85], 3, threshold=0.2)
    _require_stop(case, [1.0, 0.7, 0.4, 0.1], None, threshold=0.2)


@_patience_rule(
    "PAT-004",
    why="All comparisons with NaN are false. NaN counted as an improvement, so the training never "
    "stopped (Bjarten/early-stopping-pytorch#28, ultralytics/ultralytics#19357). If NaN is "
    "kept as the best value, no later value is better, and a training that improves stops.",
    fix="Test `value < best`, not `not value >= best`, and never keep NaN as the best value.",
)
def nan_is_no_improvement(case: Case) -> None:
    """NaN is no improvement, and any number after it may be one."""
    _require_stop(case, [1.0, math.nan, math.nan, math.nan], 3)
    _require_stop(case, [math.nan, 1.0, 0.9, 0.8, 0.7], None)


@_patience_rule(
    "PAT-005",
    why="The evaluation of another set counted as one without an improvement, or ended the "
    "training (Lightning-AI/pytorch-lightning#524).",
    fix="Ignore evaluations that do not report the metric.",
)
def other_evaluations_do_not_count(case: Case) -> None:
    """An evaluation of another set, under other names, does not use up the patience."""
    training = _begin(case, 2, 0.0)
    training.step({"loss": 0.5}, evaluates=True)
    training.evaluate({"eval_loss": 1.0})
    for _ in range(3):
        training.evaluate({"test_loss": 5.0})
    stopped = training.control.should_training_stop
    training.end()
    require(not stopped, "evaluations under other names used up the patience")


@rule(
    "PAT-006",
    needs=("patience", "state"),
    why="The count restarts when a training is resumed, so that the training never stops "
    "(keras-team/keras#14862, huggingface/transformers#28544).",
    fix="Save the count and the best value in the state, and do not reset them in on_train_begin.",
)
def the_count_continues_after_a_resume(case: Case) -> None:
    """A resumed training stops at the same evaluation as an uninterrupted one."""
    training = _begin(case, 3, 0.0)
    _evaluate(training, [1.0, 1.1])
    states, step = case.states_of(training.callbacks[0]), training.state.global_step
    training.end(OUT_OF_MEMORY)
    callback = case.subject.make_patient(case.output_dir, 3, 0.0)
    resumed = case.resume(callback, states, step, interrupted=training, max_steps=100)
    resumed.begin()
    stopped_at = _evaluate(resumed, [1.2, 1.3, 1.4])
    resumed.end()
    require(
        stopped_at == 2,
        "with patience 3, and one evaluation without an improvement before the interruption, it "
        f"stopped at evaluation {stopped_at} after the resume, not at the second",
    )
