"""`TrainerControl`: the five switches by which callbacks steer the loop, and who turned them on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from callback_core.persistence import ExportableState

FLAGS: Final = (
    "should_training_stop",
    "should_epoch_stop",
    "should_save",
    "should_evaluate",
    "should_log",
)


class Request(NamedTuple):
    """One callback's request that a flag be on.

    Attributes:
        flag: The flag that was switched on.
        by: The class name of the callback that asked, or `None` where it was no callback.
        step: The `global_step` at which it asked, or `None` outside of an event.
        reason: Why, as given to `TrainerControl.request_stop`.
    """

    flag: str
    by: str | None
    step: int | None
    reason: str | None = None

    def __str__(self) -> str:
        """Say who asked for what, when and why."""
        who = self.by or "the program"
        when = "" if self.step is None else f" at step {self.step}"
        why = f": {self.reason}" if self.reason else ""
        return f"{who} asked for {self.flag}{when}{why}"


class _Flag:
    """A switch of the control: switching it on is kept as a request of whoever is being called."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, control: TrainerControl | None, owner: type) -> bool:
        # Of the class it is the default, as any field of a dataclass.
        return False if control is None else control.__dict__.get(self.name, False)

    def __set__(self, control: TrainerControl, value: bool) -> None:
        if value:
            control.request(self.name, None)
        else:
            control.__dict__[self.name] = False
            control.reset({self.name: False})


def _flag() -> Any:
    """Return a field of a dataclass that is a switch, and off at first."""
    return _Flag()


class _Attribution(ExportableState):
    """Who asks, beside the fields: there before any constructor, and gone from a copy.

    They are slots, since the handler sets them at every call of a callback.
    """

    __slots__ = ("_requests", "caller", "caller_state")

    _requests: list[Request]
    caller: object  # the callback that is being called
    caller_state: Any  # the state that it is called with

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return a control for which nobody has asked anything."""
        control = super().__new__(cls)
        control._requests = []
        control.caller = control.caller_state = None
        return control

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a copy takes over: neither the callback nor the state of the moment."""
        return self.__dict__, {"_requests": list(self._requests)}


@dataclass
class TrainerControl(_Attribution):
    """The switches that callbacks turn on to act on the loop.

    A callback changes the control that it is given; it may also return one, which then replaces it.
    Setting a flag is attributed: `requests` tells which callback asked for it and at which step.
    Two controls are equal when their flags are; who asked does not count.

    Args:
        should_training_stop: Stop training after the current batch. Stays on until the next
            training begins.
        should_epoch_stop: Leave the current epoch after the current batch. Off again when the next
            one begins.
        should_save: Save a checkpoint at this step. Off again once saved, and at the next step.
        should_evaluate: Evaluate at this step. Off again once evaluated, and at the next step.
        should_log: Log at this step. Off again once logged, and at the next step.
    """

    should_training_stop: bool = _flag()
    should_epoch_stop: bool = _flag()
    should_save: bool = _flag()
    should_evaluate: bool = _flag()
    should_log: bool = _flag()

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests behind the flags that are on, oldest first; setting it sets the flags."""
        return tuple(self._requests)

    @requests.setter
    def requests(self, requests: Iterable[Request | dict[str, Any]]) -> None:
        self._requests = [
            request if isinstance(request, Request) else Request(**request) for request in requests
        ]
        asked = {request.flag for request in self._requests}
        self.__dict__.update((flag, flag in asked) for flag in FLAGS)

    def request_stop(self, reason: str) -> None:
        """Ask that training stop, and say why.

        `should_training_stop = True` does the same without a reason.
        """
        self.request("should_training_stop", reason)

    def state(self) -> dict[str, Any]:
        """Return the flags and the requests behind them, as a checkpoint keeps them."""
        return {
            "args": {flag: getattr(self, flag) for flag in FLAGS},
            "attributes": {"requests": [request._asdict() for request in self._requests]},
        }

    def request(self, flag: str, reason: str | None) -> None:
        """Switch `flag` on in the name of the callback that is being called."""
        self.__dict__[flag] = True
        by = step = None
        if self.caller is not None:
            by, step = type(self.caller).__name__, self.caller_state.global_step
        self._requests.append(Request(flag, by, step, reason))

    def reset(self, off: dict[str, bool]) -> None:
        """Switch off the flags in `off`, which are all false, and forget who asked for them."""
        if self._requests:  # without a request no flag is on
            self.__dict__.update(off)
            self._requests = [request for request in self._requests if request.flag not in off]


def request_stop(control: Any, reason: str) -> None:
    """Ask that training stop, with the reason where `control` keeps one: transformers' does not."""
    if isinstance(control, TrainerControl):
        control.request_stop(reason)
    else:
        control.should_training_stop = True
