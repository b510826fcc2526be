"""Isolates rules from each other: time limits, leftover deliveries and their warnings."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

from callback_core.tracking import TrackerCallback

_END_TIMEOUT: Final = 5.0
"""Seconds that the deliveries of a rule get to end. One may be inside a call of an SDK."""

_LEFTOVER_THREADS: Final[WeakSet[threading.Thread]] = WeakSet()
"""Threads in which a delivery of an earlier rule is still inside a call."""


class RuleTookTooLong(BaseException):
    """A rule exceeded its time limit. A callback's `except Exception` does not catch this."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `RuleTookTooLong` inside the block after `seconds`.

    The limit needs `signal.setitimer` and the main thread. Without them, the block is unlimited.
    """
    if not hasattr(signal, "setitimer") or (
        threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def interrupt(*_: Any) -> None:
        raise RuleTookTooLong

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5.0)  # repeated, because a `finally` may hang too
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def end_trainings(callbacks: Iterable[object]) -> None:
    """End the trainings of trackers' callbacks, and wait for their deliveries."""
    for callback in callbacks:
        if isinstance(callback, TrackerCallback) and callback.session is not None:
            callback.session.close("failed")
    deadline = monotonic() + _END_TIMEOUT
    for thread in threading.enumerate():
        if thread.name.startswith("deliver to ") and thread not in _LEFTOVER_THREADS:
            thread.join(max(0.0, deadline - monotonic()))
            if thread.is_alive():
                _LEFTOVER_THREADS.add(thread)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect what all loggers and Python's `warnings` report in the block.

    Warnings from leftover deliveries of earlier rules are ignored.
    """
    lines: list[str] = []
    factory = logging.getLogRecordFactory()

    def collect(line: str) -> None:
        if threading.current_thread() not in _LEFTOVER_THREADS:
            lines.append(line)

    def collecting_factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = factory(*args, **kwargs)
        if record.levelno >= logging.WARNING:
            collect(record.getMessage())
        return record

    logging.setLogRecordFactory(collecting_factory)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # the same warning of one line is shown once
            warnings.showwarning = lambda message, *_, **__: collect(str(message))
            yield lines
    finally:
        logging.setLogRecordFactory(factory)
