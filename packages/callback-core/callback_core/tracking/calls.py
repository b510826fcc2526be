"""`TrackerCalls`: calls a tracker, shows how long a call takes, and stops when abandoned."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from time import monotonic
from typing import Any, Final

_RETRIES: Final = logging.getLogger("urllib3.connectionpool")
"""Where urllib3, on which most SDKs build, warns of a request that failed and that it repeats."""


class Abandoned(Exception):
    """Nobody waits any longer for the tracker, so nothing more is delivered."""


class TrackerCalls:
    """Calls the methods of a tracker, all of them in one thread.

    Attributes:
        trouble: Why a request failed that the SDK repeats in the call that runs now, if known. An
            SDK may repeat it for minutes.
    """

    def __init__(self) -> None:
        self._current: tuple[str, float] | None = None  # the method, and when it was called
        self._abandoned = False
        self._turn = Lock()  # a call begins either before `abandon` or never
        self.trouble: str | None = None

    def __call__(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `method` returns.

        Raises:
            Abandoned: Nobody waits for the tracker, or nobody did by the time `method` returned.
        """
        with self._turn:
            self.check()
            self._current = (method.__name__, monotonic())
        try:
            with self._noted_trouble():
                return method(*arguments)
        finally:
            self._current = None
            self.check()

    def abandon(self) -> bool:
        """Make the call that runs now the last one, and return whether one runs.

        Any thread may call this.
        """
        with self._turn:
            self._abandoned = True
            return self._current is not None

    @property
    def are_abandoned(self) -> bool:
        """Whether nobody waits for the tracker any longer."""
        return self._abandoned

    def check(self) -> None:
        """Raise `Abandoned` if the tracker is abandoned."""
        if self._abandoned:
            raise Abandoned

    @contextmanager
    def _noted_trouble(self) -> Iterator[None]:
        self.trouble, thread = None, get_ident()

        def note(record: logging.LogRecord) -> bool:
            if get_ident() == thread and record.levelno >= logging.WARNING:
                errors = record.args if isinstance(record.args, tuple) else ()
                error = next((arg for arg in errors if isinstance(arg, Exception)), None)
                self.trouble = record.getMessage() if error is None else str(error)
            return True  # it only listens

        _RETRIES.addFilter(note)
        try:
            yield
        finally:
            _RETRIES.removeFilter(note)

    def running(self) -> tuple[str, float] | None:
        """Return the method that runs now, and for how many seconds; `None` if there is none.

        Other threads ask this, to notice a call that hangs.
        """
        current = self._current
        return None if current is None else (current[0], monotonic() - current[1])
