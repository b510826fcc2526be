"""Control: a callback asks, and takes nothing back that another has asked for."""

from __future__ import annotations

from typing import Any

from callback_contract._case import Case
from callback_contract._registry import rule
from callback_contract._training import Training
from callback_contract._violation import require
from callback_contract._watching import FLAGS, Observed, flags
from callback_core import TrainerControl


@rule(
    "CTL-001",
    why="save_strategy='best' sets should_save to False though a user's callback had asked for a "
    "checkpoint (transformers 5.23.0).",
    mend="Set flags to True only; never assign a condition, as in `control.should_save = is_best`.",
)
def clears_no_flag(case: Case) -> None:
    """A flag that is on before an event is on after it."""
    case.live_and_stop(kind=_AllAskedFor, max_steps=12)


@rule(
    "CTL-002",
    why="Nobody can tell which of several callbacks stopped a training (keras-team/keras#12052). "
    "A control here knows who asked, when and why, as long as nobody drops it on the way.",
    mend="Change or return the control that you are given, not one of your own making.",
)
def keeps_the_requests_of_others(case: Case) -> None:
    """The requests of others, with who, when and why, are there after an event."""
    case.live_and_stop(kind=_Reasoned, max_steps=12)


@rule(
    "CTL-003",
    unless="steers",
    why="Nobody could tell which of several callbacks had stopped a training "
    "(keras-team/keras#12052), and one that only watches is looked at last.",
    mend="Leave the control alone; or claim the capability `steers` if it is meant to steer.",
)
def asks_for_nothing_unless_it_steers(case: Case) -> None:
    """A callback that does not claim to steer asks for no log, evaluation, checkpoint or epoch."""
    training = case.training(kind=Observed, max_steps=12)
    training.live()
    assert isinstance(training, Observed)
    asked = [what for what in training.asked if not what.startswith("should_training_stop")]
    require(not asked, f"it asked for {', '.join(asked[:3])}")


@rule(
    "CTL-004",
    unless="stops",
    why="A training that ends early without a word looks as if it were done "
    "(scverse/scvi-tools#978).",
    mend="Do not ask for the end; or claim the capability `stops` if it is meant to.",
)
def does_not_end_a_training_unless_it_stops(case: Case) -> None:
    """A callback that does not claim to stop does not ask for the end before the last step."""
    training = case.training(kind=Observed, max_steps=12)
    training.begin()
    for step in training.steps(save=True):
        ends = training.control.should_training_stop and step < training.max_steps
        require(not ends, f"it asked for the end at step {step} of {training.max_steps}")
    training.finish()


@rule(
    "CTL-005",
    needs=("stops", "reasons"),
    why="Every framework is asked who stopped a training, and at which metric "
    "(keras-team/keras#12052, Lightning-AI/pytorch-lightning#21188).",
    mend='Ask by `control.request_stop("why")` instead of should_training_stop = True.',
)
def gives_a_reason_for_the_end(case: Case) -> None:
    """A callback that claims `reasons` gives one when it asks for the end of a training."""
    training = _stopped(case)
    stops = [r for r in training.control.requests if r.flag == "should_training_stop"]
    require(stops and all(r.reason for r in stops), f"its requests are {stops}")


@rule(
    "CTL-006",
    why="What an event returns replaces the control for all callbacks after it (transformers "
    "5.23.0). A callback that returned something else by mistake broke the loop.",
    mend="Return nothing, or the control.",
)
def returns_a_control_or_nothing(case: Case) -> None:
    """An event returns None or a `TrainerControl`."""
    case.live_and_stop(kind=_Answered, max_steps=12)


@rule(
    "CTL-007",
    needs=("stops",),
    why="Early stopping that watched a metric under another name never stopped anything, and "
    "nobody noticed (ThilinaRajapakse/simpletransformers#1097).",
    mend="Set control.should_training_stop; or say by the hook train_until_it_stops when it does.",
)
def stops_when_its_author_says(case: Case) -> None:
    """A callback that claims to stop asks for the end in the training of its author's hook.

    That is the hook `train_until_it_stops`: by default 20 equal evaluations.
    """
    _stopped(case)


@rule(
    "CTL-008",
    needs=("stops",),
    why="A stopped training that was resumed, or begun again, stopped at once "
    "(huggingface/transformers#28544).",
    mend="In on_train_begin, reset what an earlier training has counted.",
)
def a_stop_is_not_that_of_the_next_training(case: Case) -> None:
    """After a training that it has stopped, a callback lets the next one take its first step."""
    first = _stopped(case)
    training = case.training(*first.callbacks)
    training.begin()
    next(training.steps())
    stops = training.control.should_training_stop
    require(not stops, "it asked for the end of the next training at its first step")
    training.finish()


def _stopped(case: Case) -> Training:
    """Train until the callback asks for the end."""
    training = case.training(kind=Observed)
    case.subject.train_until_it_stops(training)
    assert isinstance(training, Observed)
    asked = any(what.startswith("should_training_stop") for what in training.asked)
    require(asked, "it never asked for the end, although it claims to stop")
    return training


class _AllAskedFor(Training):
    """A training in which all flags are on at every call."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        for flag in FLAGS:
            setattr(self.control, flag, True)
        answer = super().call(callback, event, keywords)
        cleared = set(FLAGS) - flags(self.control)
        name = f"{type(callback).__name__}.{event}"
        require(not cleared, f"{name} cleared {', '.join(sorted(cleared))}")
        for flag in FLAGS:  # the loop goes on as if nobody had asked
            setattr(self.control, flag, False)
        return answer


class _Reasoned(Training):
    """A training in which somebody has asked for the end, and said why, at every call."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        self.control.request_stop("somebody else's reason")
        before = self.control.requests
        answer = super().call(callback, event, keywords)
        kept = self.control.requests[: len(before)] == before
        require(kept, f"{type(callback).__name__}.{event} dropped or changed others' requests")
        self.control = TrainerControl()  # the loop goes on as if nobody had asked
        return answer


class _Answered(Training):
    """A training that looks at what the events return."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        answer = super().call(callback, event, keywords)
        fits = answer is None or isinstance(answer, TrainerControl)
        require(fits, f"{type(callback).__name__}.{event} returned {answer!r}")
        return answer
