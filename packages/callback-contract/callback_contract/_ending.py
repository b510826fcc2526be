"""The end of a rule: nothing that it has begun or changed in the process reaches the next."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Final
from weakref import WeakSet

from callback_core.tracking import TrackerCallback

_PATIENCE: Final = 5.0
"""Seconds for the deliveries of a rule to end. One may be in a call of an SDK for minutes."""

_OF_EARLIER_RULES: Final[WeakSet[threading.Thread]] = WeakSet()


def is_of_an_earlier_rule(thread: threading.Thread) -> bool:
    """Return whether it is a delivery that an earlier rule began, and that is in a call still."""
    return thread in _OF_EARLIER_RULES


def deliveries() -> list[threading.Thread]:
    """Return the threads of this rule that deliver."""
    named = (t for t in threading.enumerate() if t.name.startswith("deliver to "))
    return [thread for thread in named if not is_of_an_earlier_rule(thread)]


def end_trainings(callbacks: Iterable[object]) -> None:
    """End the trainings that callbacks of trackers take part in, and wait for their deliveries."""
    for callback in callbacks:
        if isinstance(callback, TrackerCallback):
            callback.end("failed")
    deadline = monotonic() + _PATIENCE
    for thread in deliveries():
        thread.join(max(0.0, deadline - monotonic()))
        if thread.is_alive():
            _OF_EARLIER_RULES.add(thread)


@contextmanager
def process_put_back() -> Iterator[None]:
    """Put back what the block changes of what all code of a process shares."""
    root = logging.getLogger()
    variables, at = dict(os.environ), os.getcwd()
    handlers, level = [*root.handlers], root.level
    hooks = sys.excepthook, threading.excepthook
    signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        with suppress(FileNotFoundError):  # some rules delete the directory they work in
            os.chdir(at)
        if os.environ != variables:
            os.environ.clear()
            os.environ.update(variables)
        root.handlers[:] = handlers
        root.setLevel(level)
        sys.excepthook, threading.excepthook = hooks
        if threading.current_thread() is threading.main_thread():
            for number, was in signals.items():
                if was is not None and signal.getsignal(number) is not was:
                    signal.signal(number, was)
