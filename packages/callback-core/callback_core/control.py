"""`TrainerControl`: the five flags by which callbacks steer the loop, and who set them."""

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
    """One callback's request to set a flag.

    Attributes:
        flag: The flag.
        by: The class name of the callback; `None` if no callback asked.
        step: The `global_step` of the request; `None` outside of an event.
        reason: The reason that `TrainerControl.request_stop` got.
    """

    flag: str
    by: str | None
    step: int | None
    reason: str | None = None

    def __str__(self) -> str:
        """Return who asked for what, when and why."""
        who = self.by or "the program"
        when = "" if self.step is None else f" at step {self.step}"
        why = f": {self.reason}" if self.reason else ""
        return f"{who} asked for {self.flag}{when}{why}"


class _Flag:
    """A flag of the control. Setting it adds a request of the callback that is being called."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, control: TrainerControl | None, owner: type) -> bool:
        # On the class it is the default, as for any field of a dataclass.
        return False if control is None else control.__dict__.get(self.name, False)

    def __set__(self, control: TrainerControl, value: bool) -> None:
        if value:
            control.request(self.name, None)
        else:
            control.__dict__[self.name] = False
            control.reset({self.name: False})


def _flag() -> Any:
    """Return a dataclass field that is a flag, off by default."""
    return _Flag()


class _Attribution(ExportableState):
    """Who sets a flag. These are not fields: they exist before any constructor runs.

    They are slots, because the handler sets them at every call of a callback.
    """

    __slots__ = ("_requests", "caller", "caller_state")

    _requests: list[Request]
    caller: object  # the callback that is being called
    caller_state: Any  # the state that it is called with

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return a control without requests."""
        control = super().__new__(cls)
        control._requests = []
        control.caller = control.caller_state = None
        return control

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a copy keeps, without the callback that is being called."""
        return self.__dict__, {"_requests": list(self._requests)}


@dataclass
class TrainerControl(_Attribution):
    """The flags that callbacks set to steer the loop.

    A callback changes the control that it gets. It may also return another one, which replaces it.
    `requests` tells which callback set a flag, and at which step. Two controls are equal if their
    flags are, whoever set them.

    Args:
        should_training_stop: Stop training after the current batch. It stays set until the next
            training begins.
        should_epoch_stop: Leave the current epoch after the current batch. It is reset when the
            next one begins.
        should_save: Save a checkpoint at this step. It is reset after that, and at the next step.
        should_evaluate: Evaluate at this step. It is reset after that, and at the next step.
        should_log: Log at this step. It is reset after that, and at the next step.
    """

    should_training_stop: bool = _flag()
    should_epoch_stop: bool = _flag()
    should_save: bool = _flag()
    should_evaluate: bool = _flag()
    should_log: bool = _flag()

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests behind the flags that are set, oldest first. Setting them sets the flags."""
        return tuple(self._requests)

    @requests.setter
    def requests(self, requests: Iterable[Request | dict[str, Any]]) -> None:
        self._requests = [
            request if isinstance(request, Request) else Request(**request) for request in requests
        ]
        asked = {request.flag for request in self._requests}
        self.__dict__.update((flag, flag in asked) for flag in FLAGS)

    def request_stop(self, reason: str) -> None:
        """Ask to stop the training, for this reason.

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
        """Set `flag` on behalf of the callback that is being called."""
        self.__dict__[flag] = True
        by = step = None
        if self.caller is not None:
            by, step = type(self.caller).__name__, self.caller_state.global_step
        self._requests.append(Request(flag, by, step, reason))

    def reset(self, off: dict[str, bool]) -> None:
        """Reset the flags in `off`, whose values are all false, and forget who set them."""
        if self._requests:  # without a request no flag is on
            self.__dict__.update(off)
            self._requests = [request for request in self._requests if request.flag not in off]


def request_stop(control: Any, reason: str) -> None:
    """Ask to stop the training. transformers' control has no place for the reason."""
    if isinstance(control, TrainerControl):
        control.request_stop(reason)
    else:
        control.should_training_stop = True
