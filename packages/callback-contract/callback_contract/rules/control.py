"""Control: a callback asks, says why, and takes nothing back that another has asked for."""

from __future__ import annotations

from typing import Any

from callback_contract._case import Case, Training
from callback_contract._rule import require, rule
from callback_contract._watching import Watched
from callback_core import TrainerControl

_FLAGS = (
    "should_training_stop",
    "should_epoch_stop",
    "should_save",
    "should_evaluate",
    "should_log",
)


@rule(
    "CTL-001",
    why="save_strategy='best' sets should_save to False where a user's callback had asked for a"
    " checkpoint (transformers 5.23.0).",
    mend="Set flags to True only; never assign a condition, as in `control.should_save = is_best`.",
)
def clears_no_flag(case: Case) -> None:
    """A flag that is on before an event is on after it."""
    training = _AllAskedFor([case.make()], case.arguments())
    training.live()


@rule(
    "CTL-002",
    why="Nobody can tell which of several callbacks stopped a training "
    "(keras-team/keras#12052). A control here knows who, when and why, as long as nobody "
    "drops it on the way.",
    mend="Change or return the control that you are given, not one of your own making.",
)
def keeps_reasons(case: Case) -> None:
    """The requests of others, with who, when and why, are there after an event."""
    training = _Reasoned([case.make()], case.arguments())
    training.live()


@rule(
    "CTL-003",
    why="Of several callbacks, nobody could tell which one had stopped a training "
    "(keras-team/keras#12052), and one that only is to watch is looked at last.",
    mend="Leave the control alone; or claim the capability `steers`, where it is meant to steer.",
)
def asks_for_nothing_unless_it_steers(case: Case) -> None:
    """A callback that does not claim to steer asks for nothing."""
    if "steers" not in case.subject.capabilities:
        Watched(case, "the control", lambda training, _: _on(training.control)).live()


@rule(
    "CTL-004",
    why="A training that ends early without a word looks as if it were done "
    "(scverse/scvi-tools#978).",
    mend="Do not ask for the end; or claim the capability `stops`, where it is meant to.",
)
def does_not_end_a_training_unless_it_stops(case: Case) -> None:
    """A callback that does not claim to stop does not ask for the end before the last step."""
    if "stops" in case.subject.capabilities:
        return
    training = case.training()
    training.begin()
    for _ in range(training.state.max_steps - 1):
        training.step({"loss": 0.5})
        training.evaluate()
        asked = training.control.should_training_stop
        require(not asked, f"it asked for the end at step {training.state.global_step}")
    training.end()


@rule(
    "CTL-005",
    why="Who stopped a training, and at which metric, is asked for in every framework "
    "(keras-team/keras#12052, Lightning-AI/pytorch-lightning#21188).",
    mend='Ask by `control.request_stop("why")` instead of should_training_stop = True.',
    needs=("stops",),
)
def says_why_it_stops(case: Case) -> None:
    """A callback that asks for the end of a training gives a reason."""
    training = case.training()
    case.subject.train_until_it_stops(training)
    stops = [r for r in training.control.requests if r.flag == "should_training_stop"]
    require(stops, "it never asked for the end, although it claims to")
    require(all(r.reason for r in stops), "it asked for the end of training without a reason")


@rule(
    "CTL-006",
    why="What an event returns replaces the control for all that follow (transformers 5.23.0); "
    "a callback that returned its answer by mistake broke the loop behind it.",
    mend="Return nothing, or the control.",
)
def returns_a_control_or_nothing(case: Case) -> None:
    """An event returns None or a `TrainerControl`."""
    training = _Answered([case.make()], case.arguments())
    training.live()


class _AllAskedFor(Training):
    """A training in which all flags are on at every call."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        for flag in _FLAGS:
            setattr(self.control, flag, True)
        answer = super().call(callback, event, keywords)
        cleared = set(_FLAGS) - _on(self.control)
        name = f"{type(callback).__name__}.{event}"
        require(not cleared, f"{name} cleared {', '.join(sorted(cleared))}")
        return answer


class _Reasoned(Training):
    """A training in which somebody has asked for the end, and said why, at every call."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        self.control.request_stop("somebody else's reason")
        before = self.control.requests
        answer = super().call(callback, event, keywords)
        kept = self.control.requests[: len(before)] == before
        require(kept, f"{type(callback).__name__}.{event} dropped or changed others' requests")
        return answer


class _Answered(Training):
    """A training that looks at what the events return."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        answer = super().call(callback, event, keywords)
        good = answer is None or isinstance(answer, TrainerControl)
        require(good, f"{type(callback).__name__}.{event} returned {answer!r}")
        return answer


def _on(control: TrainerControl) -> set[str]:
    return {flag for flag in _FLAGS if getattr(control, flag)}
