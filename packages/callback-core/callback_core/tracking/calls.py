"""`TrackerCalls`: calls a tracker, shows how long a call takes, and stops when abandoned."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any


class Abandoned(Exception):
    """Nobody waits any longer for the tracker, so nothing more is delivered."""


class TrackerCalls:
    """Calls the methods of a tracker, all of them in one thread.

    Attributes:
        current: The name of the method that runs now, and when it was called, in monotonic seconds.
            Other threads read it to notice a call that hangs.
    """

    def __init__(self) -> None:
        self.current: tuple[str, float] | None = None
        self._abandoned = False

    def __call__(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Return what `method` returns.

        Raises:
            Abandoned: Nobody waits for the tracker, or nobody did by the time `method` returned.
        """
        self.check()
        self.current = (method.__name__, monotonic())
        try:
            return method(*arguments)
        finally:
            self.current = None
            self.check()

    def abandon(self) -> None:
        """Make the call that runs now the last one. Any thread may call this."""
        self._abandoned = True

    def check(self) -> None:
        """Raise `Abandoned` if the tracker is abandoned."""
        if self._abandoned:
            raise Abandoned

    def seconds(self) -> float:
        """Return how long the current call has been running; 0 if there is none."""
        current = self.current
        return 0.0 if current is None else monotonic() - current[1]
