"""Control: a callback makes requests, and withdraws none that others made."""

from __future__ import annotations

from typing import Any

from callback_contract._case import Case
from callback_contract._registry import rule
from callback_contract._training import Training
from callback_contract._violation import require
from callback_contract._watching import FLAGS, ObservedTraining, flags
from callback_core import TrainerControl


@rule(
    "CTL-001",
    why="save_strategy='best' sets should_save to False although a user's callback requested a "
    "checkpoint (transformers 5.23.0).",
    fix="Only set flags to True. Do not assign conditions, as in `control.should_save = is_best`.",
)
def clears_no_flag(case: Case) -> None:
    """A flag that is on before an event is on after it."""
    case.exercise(kind=_AllFlagsOn, max_steps=12)


@rule(
    "CTL-002",
    why="Users cannot tell which of several callbacks stopped a training "
    "(keras-team/keras#12052). The control records who requested what, when and why, unless a "
    "callback drops the record.",
    fix="Change or return the control that the event passes, not a new one.",
)
def keeps_the_requests_of_others(case: Case) -> None:
    """After an event, the control has all earlier requests with their author, step and reason."""
    case.exercise(kind=_EarlierRequest, max_steps=12)


@rule(
    "CTL-003",
    unless="steers",
    why="Users could not tell which of several callbacks stopped a training "
    "(keras-team/keras#12052). Nobody suspects a callback that should only observe.",
    fix="Leave the control alone, or claim the capability `steers`.",
)
def requests_nothing_unless_it_steers(case: Case) -> None:
    """A callback without `steers` requests no log, evaluation, checkpoint or end of an epoch."""
    training = case.training(kind=ObservedTraining, max_steps=12)
    training.live()
    assert isinstance(training, ObservedTraining)
    requests = [r for r in training.requests if not r.startswith("should_training_stop")]
    require(not requests, f"it requested {', '.join(requests[:3])}")


@rule(
    "CTL-004",
    unless="stops",
    why="A training that stops early without a message looks complete (scverse/scvi-tools#978).",
    fix="Do not stop the training, or claim the capability `stops`.",
)
def does_not_stop_a_training_unless_it_stops(case: Case) -> None:
    """A callback without `stops` does not stop a training before its last step."""
    training = case.begin(kind=ObservedTraining, max_steps=12)
    for step in training.steps(save=True):
        stops = training.control.should_training_stop and step < training.max_steps
        require(not stops, f"it stopped the training at step {step} of {training.max_steps}")
    training.finish()


@rule(
    "CTL-005",
    needs=("stops", "reasons"),
    why="Users of every framework want to know which callback stopped a training, and why "
    "(keras-team/keras#12052, Lightning-AI/pytorch-lightning#21188).",
    fix='Call `control.request_stop("why")` instead of setting should_training_stop.',
)
def gives_a_reason_for_a_stop(case: Case) -> None:
    """A callback that claims `reasons` gives a reason when it stops a training."""
    training = _stopped_training(case)
    stops = [r for r in training.control.requests if r.flag == "should_training_stop"]
    require(stops and all(r.reason for r in stops), f"its requests are {stops}")


@rule(
    "CTL-006",
    why="The return value of an event replaces the control for all later callbacks "
    "(transformers 5.23.0). A callback that returned something else by mistake broke the loop.",
    fix="Return None or the control.",
)
def returns_a_control_or_nothing(case: Case) -> None:
    """An event returns None or a `TrainerControl`."""
    case.exercise(kind=_CheckedAnswer, max_steps=12)


@rule(
    "CTL-007",
    needs=("stops",),
    why="Early stopping that watched a metric under a wrong name never stopped a training, and "
    "nobody noticed (ThilinaRajapakse/simpletransformers#1097).",
    fix="Set control.should_training_stop, or train in the hook train_until_it_stops until the "
    "callback does.",
)
def stops_when_its_author_says(case: Case) -> None:
    """A callback that claims `stops` stops the training of the hook `train_until_it_stops`.

    By default, this training has 20 equal evaluations.
    """
    _stopped_training(case)


@rule(
    "CTL-008",
    needs=("stops",),
    why="A stopped training stopped again at once when it was resumed or restarted "
    "(huggingface/transformers#28544).",
    fix="Reset all counters in on_train_begin.",
)
def a_stop_does_not_affect_the_next_training(case: Case) -> None:
    """After a callback has stopped a training, the next training takes its first step."""
    training = case.begin(*_stopped_training(case).callbacks)
    next(training.steps())
    stops = training.control.should_training_stop
    require(not stops, "it stopped the next training at its first step")
    training.finish()


def _stopped_training(case: Case) -> Training:
    """Train until the callback stops the training."""
    training = case.training(kind=ObservedTraining)
    case.subject.train_until_it_stops(training)
    assert isinstance(training, ObservedTraining)
    stopped = any(request.startswith("should_training_stop") for request in training.requests)
    require(stopped, "it never stopped the training, although it claims `stops`")
    return training


class _AllFlagsOn(Training):
    """A training in which all flags are on before each call."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        for flag in FLAGS:
            setattr(self.control, flag, True)
        answer = super().call(callback, event, keywords)
        cleared = set(FLAGS) - flags(self.control)
        name = f"{type(callback).__name__}.{event}"
        require(not cleared, f"{name} cleared {', '.join(sorted(cleared))}")
        for flag in FLAGS:  # the loop continues as if there were no requests
            setattr(self.control, flag, False)
        return answer


class _EarlierRequest(Training):
    """A training in which another callback has requested a stop before each call."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        self.control.request_stop("another callback's reason")
        before = self.control.requests
        answer = super().call(callback, event, keywords)
        kept = self.control.requests[: len(before)] == before
        name = f"{type(callback).__name__}.{event}"
        require(kept, f"{name} dropped or changed the requests of others")
        self.control = TrainerControl()  # the loop continues as if there were no requests
        return answer


class _CheckedAnswer(Training):
    """A training that checks the return values of events."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        answer = super().call(callback, event, keywords)
        valid = answer is None or isinstance(answer, TrainerControl)
        require(valid, f"{type(callback).__name__}.{event} returned {answer!r}")
        return answer
