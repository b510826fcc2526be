"""Any sequence of events and requests, against a small model of what the guides say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from arguments_for_tests import Arguments
from hypothesis import given
from hypothesis import strategies as st

from callback_core import EVENTS, CallbackHandler, TrainerCallback, TrainerControl, TrainerState
from callback_core.control import FLAGS

NAMES = ("First", "Second")

# What each of two callbacks does at an event: set a flag on or off, or ask to stop with a reason.
ACTION = st.tuples(
    st.sampled_from(NAMES), st.sampled_from(FLAGS), st.sampled_from([True, False, "why"])
)
# Training begins and ends in its order, which is a property of its own.
EVENT = st.sampled_from([name for name in EVENTS if name not in ("on_train_begin", "on_train_end")])
SEQUENCE = st.lists(st.tuples(EVENT, st.lists(ACTION, max_size=3)), max_size=12)


@dataclass
class Model:
    """The documented semantics: an event resets its flags, then each callback acts in its turn."""

    asked: dict[str, list[tuple[str, int, str | None]]] = field(
        default_factory=lambda: {flag: [] for flag in FLAGS}
    )

    def play(self, event: str, step: int, actions: list[tuple[str, str, Any]]) -> None:
        for flag in EVENTS[event].resets:
            self.asked[flag].clear()
        for name in NAMES:
            for by, flag, what in actions:
                if by != name:
                    continue
                if what == "why":
                    self.asked["should_training_stop"].append((by, step, "why"))
                elif what:
                    self.asked[flag].append((by, step, None))
                else:
                    self.asked[flag].clear()


def acting(name: str, actions: list[tuple[str, str, Any]]) -> TrainerCallback:
    """Return a callback of the class `name` that takes its part of `actions` at every event."""

    def act(self: Any, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        for by, flag, what in actions:
            if by != name:
                continue
            if what == "why":
                control.request_stop("why")
            else:
                setattr(control, flag, what)

    made: TrainerCallback = type(name, (TrainerCallback,), dict.fromkeys(EVENTS, act))()
    return made


@given(sequence=SEQUENCE)
def test_flags_and_who_asked_for_them_follow_the_documented_semantics(
    sequence: list[tuple[str, list[tuple[str, str, Any]]]],
) -> None:
    model, control, actions = Model(), TrainerControl(), []
    handler = CallbackHandler([acting(name, actions) for name in NAMES], None, None, None, None)
    for step, (event, taken) in enumerate(sequence):
        actions[:] = taken
        passed: dict[str, Any] = {name: {} for name in EVENTS[event].passes}
        control = getattr(handler, event)(
            Arguments(), TrainerState(global_step=step), control, **passed
        )
        model.play(event, step, taken)
        for flag in FLAGS:
            assert getattr(control, flag) == bool(model.asked[flag])
            assert [
                (request.by, request.step, request.reason)
                for request in control.requests
                if request.flag == flag
            ] == model.asked[flag]
