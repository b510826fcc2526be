"""Patience: a training that no longer improves is stopped at the right evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from callback_contract._case import Case
from callback_contract._registry import rule
from callback_contract._training import DIED, Training
from callback_contract._violation import require

_MEND = "Count evaluations in a row that do not improve; ask for the end when they are `patience`."


def _stops_at(training: Training, losses: Sequence[float]) -> int | None:
    """Evaluate these losses in turn, and return at which one the end is asked for, from 1."""
    for number, loss in enumerate(losses, 1):
        training.step({"loss": 0.5})
        training.evaluate({"eval_loss": loss, "eval_runtime": 0.1})
        if training.control.should_training_stop:
            return number
    return None


def _begun(case: Case, callback: Any) -> Training:
    training = case.training(callback, max_steps=100)
    training.begin()
    training.fire("on_epoch_begin")
    return training


def _require_stop(case: Case, losses: Sequence[float], at: int | None, **how: Any) -> None:
    patience, threshold = how.get("patience", 2), how.get("threshold", 0.0)
    callback = case.subject.make_patient(case.output_dir, patience, threshold)
    training = _begun(case, callback)
    found = _stops_at(training, losses)
    training.end()
    require(
        found == at,
        f"with a patience of {patience}, a threshold of {threshold} and the losses {losses}, it "
        f"asked for the end at evaluation {found}, not {at}",
    )


@rule(
    "PAT-001",
    needs=("patience",),
    why="One evaluation too early or too late is the usual mistake (keras-team/keras#8100).",
    mend=_MEND,
)
def stops_when_patience_is_used_up(case: Case) -> None:
    """The end is asked for at the evaluation that uses up the patience, and not before."""
    for patience in (1, 2, 3):
        losses = [1.0] * (patience + 2)
        _require_stop(case, losses, patience + 1, patience=patience)


@rule(
    "PAT-002",
    needs=("patience",),
    why="Evaluations that did not improve were added up over the whole training "
    "(keras-team/keras#9462).",
    mend=_MEND,
)
def an_improvement_starts_the_count_again(case: Case) -> None:
    """An evaluation that improves on all before starts the count again."""
    _require_stop(case, [1.0, 1.1, 0.9, 1.0, 0.8, 0.85, 0.81, 0.82], 7)


@rule(
    "PAT-003",
    needs=("patience",),
    why="A threshold that is added instead of subtracted makes every value an improvement "
    "(HomericIntelligence/Odyssey#1992).",
    mend="Take for an improvement what is better than the best by more than the threshold.",
)
def an_improvement_exceeds_the_threshold(case: Case) -> None:
    """A value that is better by less than the threshold is no improvement; one by more is."""
    _require_stop(case, [1.0, 0.95, 0.9, 0.85], 3, threshold=0.2)
    _require_stop(case, [1.0, 0.7, 0.4, 0.1], None, threshold=0.2)


@rule(
    "PAT-004",
    needs=("patience",),
    why="NaN compares as false with everything: it counted as an improvement, and the training "
    "never stopped (Bjarten/early-stopping-pytorch#28, ultralytics/ultralytics#19357).",
    mend="Ask for `value < best`, not for `not value >= best`.",
)
def nan_is_no_improvement(case: Case) -> None:
    """NaN is no improvement."""
    _require_stop(case, [1.0, math.nan, math.nan, math.nan], 3)


@rule(
    "PAT-005",
    needs=("patience",),
    why="An evaluation of a further set counted as one that did not improve, or ended the training "
    "(Lightning-AI/pytorch-lightning#524).",
    mend="Ignore evaluations that do not report the metric.",
)
def another_evaluation_does_not_count(case: Case) -> None:
    """An evaluation of a further set, under other names, does not use up patience."""
    training = _begun(case, case.subject.make_patient(case.output_dir, 2, 0.0))
    training.step({"loss": 0.5})
    training.evaluate({"eval_loss": 1.0})
    for _ in range(3):
        training.evaluate({"test_loss": 5.0})
    asked = training.control.should_training_stop
    training.end()
    require(not asked, "evaluations under other names used up the patience")


@rule(
    "PAT-006",
    needs=("patience", "state"),
    why="The count starts again when a training is resumed, so that it never stops "
    "(keras-team/keras#14862, huggingface/transformers#28544).",
    mend="Keep the count and the best value in the state, and let on_train_begin leave them.",
)
def the_count_continues_after_a_resume(case: Case) -> None:
    """A resumed training stops at the evaluation at which an uncut one would have."""
    make = case.subject.make_patient
    first = make(case.output_dir, 3, 0.0)
    training = _begun(case, first)
    _stops_at(training, [1.0, 1.1])
    states, step = case.states_of(first), training.state.global_step
    training.end(DIED)
    resumed = case.resumed(make(case.output_dir, 3, 0.0), states, step, of=training, max_steps=100)
    resumed.begin()
    found = _stops_at(resumed, [1.2, 1.3, 1.4])
    resumed.end()
    require(
        found == 2,
        "with a patience of 3, and one evaluation without an improvement before the cut, it asked "
        f"for the end at evaluation {found} after the cut, not at the second",
    )
