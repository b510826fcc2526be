"""`TrackerCalls`: calls a tracker, shows how long a call takes, and stops when abandoned."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any


class Abandoned(Exception):
    """Nobody waits any longer for the tracker, so nothing more is delivered."""


class TrackerCalls:
    """Calls the methods of a tracker, all of them in one thread."""

    def __init__(self) -> None:
        self._current: tuple[str, float] | None = None  # the method, and when it was called
        self._abandoned = False

    def __call__(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `method` returns.

        Raises:
            Abandoned: Nobody waits for the tracker, or nobody did by the time `method` returned.
        """
        self.check()
        self._current = (method.__name__, monotonic())
        try:
            return method(*arguments)
        finally:
            self._current = None
            self.check()

    def abandon(self) -> None:
        """Make the call that runs now the last one. Any thread may call this."""
        self._abandoned = True

    def check(self) -> None:
        """Raise `Abandoned` if the tracker is abandoned."""
        if self._abandoned:
            raise Abandoned

    def running(self) -> tuple[str, float] | None:
        """Return the method that runs now, and for how many seconds; `None` if there is none.

        Other threads ask this, to notice a call that hangs.
        """
        current = self._current
        return None if current is None else (current[0], monotonic() - current[1])
