"""The end of a rule: it takes no longer than it may, and nothing of it reaches the next."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

from callback_core.tracking import TrackerCallback

_PATIENCE: Final = 5.0
"""Seconds in which the deliveries of a rule may end. One may be inside a call of an SDK."""

_OF_EARLIER_RULES: Final[WeakSet[threading.Thread]] = WeakSet()


class RuleTookTooLong(BaseException):
    """A rule has used up its time. No `except Exception` of a callback catches this."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `RuleTookTooLong` in the block after so many seconds.

    Only the main thread of a system with alarms can be interrupted; elsewhere nothing limits it.
    """
    limited = hasattr(signal, "setitimer") and (
        threading.current_thread() is threading.main_thread()
    )
    if not limited:
        yield
        return

    def raise_it(*_: Any) -> None:
        raise RuleTookTooLong

    before = signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5.0)  # again, if a `finally` hangs as well
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def is_of_an_earlier_rule(thread: threading.Thread) -> bool:
    """Return whether a delivery of an earlier rule, still inside a call, runs in this thread."""
    return thread in _OF_EARLIER_RULES


def end_trainings(callbacks: Iterable[object]) -> None:
    """End the trainings of trackers' callbacks, and wait for their deliveries."""
    for callback in callbacks:
        if isinstance(callback, TrackerCallback) and callback.session is not None:
            callback.session.close("failed")
    deadline = monotonic() + _PATIENCE
    for thread in threading.enumerate():
        if thread.name.startswith("deliver to ") and not is_of_an_earlier_rule(thread):
            thread.join(max(0.0, deadline - monotonic()))
            if thread.is_alive():
                _OF_EARLIER_RULES.add(thread)
