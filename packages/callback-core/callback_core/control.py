"""`TrainerControl`: the five switches by which callbacks steer the loop, and who turned them on."""

from __future__ import annotations

from collections.abc import Iterable
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

    def __get__(self, control: TrainerControl | None, owner: type) -> Any:
        return self if control is None else control.__dict__[self.name]

    def __set__(self, control: TrainerControl, value: bool) -> None:
        if value:
            control._request(self.name, None)
        else:
            control._reset({self.name: False})


class TrainerControl(ExportableState):
    """The switches that callbacks turn on to act on the loop.

    A callback changes the control that it is given; it may also return one, which then replaces it.
    Setting a flag is attributed: `requests` tells which callback asked for it and at which step.

    Args:
        should_training_stop: Stop training after the current batch. Stays on until the next
            training begins.
        should_epoch_stop: Leave the current epoch after the current batch. Off again when the next
            one begins.
        should_save: Save a checkpoint at this step. Off again once saved, and at the next step.
        should_evaluate: Evaluate at this step. Off again once evaluated, and at the next step.
        should_log: Log at this step. Off again once logged, and at the next step.
    """

    __slots__ = ("_asking", "_state")  # they are set at every call of a callback

    should_training_stop = _Flag()
    should_epoch_stop = _Flag()
    should_save = _Flag()
    should_evaluate = _Flag()
    should_log = _Flag()

    def __init__(
        self,
        should_training_stop: bool = False,
        should_epoch_stop: bool = False,
        should_save: bool = False,
        should_evaluate: bool = False,
        should_log: bool = False,
    ) -> None:
        self._requests: list[Request] = []
        self._asking: object = None  # the callback that is being called
        self._state: Any = None  # the state that it is called with
        self.should_training_stop = should_training_stop
        self.should_epoch_stop = should_epoch_stop
        self.should_save = should_save
        self.should_evaluate = should_evaluate
        self.should_log = should_log

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests behind the flags that are on, oldest first."""
        return tuple(self._requests)

    @requests.setter
    def requests(self, requests: Iterable[Request | dict[str, Any]]) -> None:
        self._requests = [
            request if isinstance(request, Request) else Request(**request) for request in requests
        ]

    def request_stop(self, reason: str) -> None:
        """Ask that training stop, and say why.

        `should_training_stop = True` does the same without a reason.
        """
        self._request("should_training_stop", reason)

    def state(self) -> dict[str, Any]:
        """Return the flags and the requests behind them, as a checkpoint keeps them."""
        return {
            "args": {flag: getattr(self, flag) for flag in FLAGS},
            "attributes": {"requests": [request._asdict() for request in self._requests]},
        }

    def __eq__(self, other: object) -> bool:
        """Two controls are equal when their flags are; who asked does not count."""
        if not isinstance(other, TrainerControl):
            return NotImplemented
        return all(getattr(self, flag) == getattr(other, flag) for flag in FLAGS)

    __hash__ = None  # type: ignore[assignment]  # mutable, as transformers' dataclass is

    def __repr__(self) -> str:
        """Show the flags as the constructor takes them."""
        return f"TrainerControl({', '.join(f'{flag}={getattr(self, flag)}' for flag in FLAGS)})"

    def _request(self, flag: str, reason: str | None) -> None:
        """Switch `flag` on in the name of the callback that is being called."""
        self.__dict__[flag] = True
        by = step = None
        if self._asking is not None:
            by, step = type(self._asking).__name__, self._state.global_step
        self._requests.append(Request(flag, by, step, reason))

    def _reset(self, off: dict[str, bool]) -> None:
        """Take over the flags in `off`, which are off, and forget who had asked for them."""
        self.__dict__.update(off)
        if self._requests:
            self._requests = [request for request in self._requests if request.flag not in off]


def request_stop(control: Any, reason: str) -> None:
    """Ask that training stop, with the reason where `control` keeps one: transformers' does not."""
    if isinstance(control, TrainerControl):
        control.request_stop(reason)
    else:
        control.should_training_stop = True
