"""`TrainerControl`: the five flags by which callbacks steer the loop, and who set them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from callback_core.persistence import ExportableState
from callback_core.spelling import meant_by

logger = logging.getLogger(__name__)

FLAGS: Final = (
    "should_training_stop",
    "should_epoch_stop",
    "should_save",
    "should_evaluate",
    "should_log",
)

MOST_NESTED: Final = 10
"""How often a log may lead to a further one."""


class Request(NamedTuple):
    """One callback's request to set a flag.

    Attributes:
        flag: The flag.
        by: The class name of the callback, or what else asked; `None` if the program did.
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


class _Caller:
    """Who sets flags now.

    The handler changes it at every call of a callback, so it is as small as can be.

    Attributes:
        callback: The callback that is being called, or `None` outside of an event.
        state: The state that it is called with.
    """

    __slots__ = ("callback", "state")

    def __init__(self) -> None:
        self.callback: object = None
        self.state: Any = None


class _Called:
    """A context in which `caller` is another: see `TrainerControl.called`."""

    __slots__ = ("_callback", "_caller", "_state")

    def __init__(self, caller: _Caller, callback: object, state: Any) -> None:
        self._caller, self._callback, self._state = caller, callback, state

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *error: object) -> None:
        self._exchange()

    def _exchange(self) -> None:
        caller = self._caller
        caller.callback, self._callback = self._callback, caller.callback
        caller.state, self._state = self._state, caller.state


class _Attribution(ExportableState):
    """Who sets a flag. These are not fields: they exist before any constructor runs."""

    __slots__ = ("_logs", "_nested", "_requests", "caller")

    _logs: list[tuple[object, Any, dict[str, Any]]]
    _nested: int
    _requests: list[Request]
    caller: _Caller

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Return a control without requests."""
        control = super().__new__(cls)
        control._logs, control._nested = [], 0
        control._requests = []
        control.caller = _Caller()
        return control

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a copy keeps: neither the callback that is being called, nor its logs."""
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

    def log(self, logs: Mapping[str, Any]) -> None:
        """Log values at the current step, once the current event is over.

        The loop adds them to the history and fires `on_log`, as it does for its own logs. So the
        values reach all callbacks, including the one that logs them.

        Raises:
            TypeError: `logs` does not map names to values.
        """
        if not isinstance(logs, Mapping):
            raise TypeError(
                f"control.log takes values by name, such as {{'lr': 0.1}}, not {logs!r}."
            )
        self._logs.append((self.caller.callback, self.caller.state, dict(logs)))

    def pass_logs(self, log: Callable[[dict[str, Any]], object]) -> None:
        """Call `log` with what callbacks have logged. A loop calls this after each event.

        Raises:
            RuntimeError: A callback logs again whenever it sees a log.
        """
        if not self._logs:
            return
        logs, self._logs = self._logs, []
        self._nested += 1
        try:
            if self._nested > MOST_NESTED:
                raise RuntimeError(
                    f"{type(logs[0][0]).__name__} logs {', '.join(logs[0][2])} at every on_log, "
                    "also at its own. Let it log only if `logs` has the value that it waits for."
                )
            for callback, state, values in logs:
                with self.called(callback, state):  # so that a log that is due stays due
                    log(values)
        finally:
            self._nested -= 1

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
        if self.caller.callback is not None:
            by, step = type(self.caller.callback).__name__, self.caller.state.global_step
        self._requests.append(Request(flag, by, step, reason))

    def reset(self, off: dict[str, bool]) -> None:
        """Reset the flags in `off`, whose values are all false, and forget who set them."""
        if self._requests:  # without a request no flag is on
            self.__dict__.update(off)
            self._requests = [request for request in self._requests if request.flag not in off]

    def called(self, callback: object, state: Any) -> AbstractContextManager[None]:
        """Attribute requests to `callback` while it runs, and reset no flag at its own events.

        Args:
            callback: An object that the loop calls, and that is no callback of the handler.
            state: The state of the training.
        """
        return _Called(self.caller, callback, state)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. A warning names one that looks like a flag but is none."""
        if type(self) is TrainerControl and name not in self.__dict__:
            self._check_name(name, value)
        super().__setattr__(name, value)

    def _check_name(self, name: str, value: object) -> None:
        known = getattr(TrainerControl, name, None)
        if callable(known):
            logger.warning(
                "%s was assigned to control.%s, which is a method: call it instead.", value, name
            )
            return
        if hasattr(TrainerControl, name):
            return
        words = set(name.split("_"))
        meant = [flag for flag in FLAGS if words < set(flag.split("_"))]
        if not meant and (near := meant_by(name, FLAGS)):
            meant = [near]
        if meant or isinstance(value, bool):
            by = self.caller.callback
            logger.warning(
                "%s set control.%s, which no loop reads. %s The flags are: %s.",
                "The program" if by is None else type(by).__name__,
                name,
                f"Did it mean {' or '.join(meant)}?" if meant else "",
                ", ".join(FLAGS),
            )


def request_stop(control: Any, reason: str) -> None:
    """Ask to stop the training, in any loop.

    Args:
        control: Our `TrainerControl`, which keeps the reason; or that of transformers, which has no
            place for it. The reason is then logged.
        reason: Why the training stops.
    """
    if isinstance(control, TrainerControl):
        control.request_stop(reason)
    else:
        control.should_training_stop = True
        logger.warning("Training stops: %s.", reason)
