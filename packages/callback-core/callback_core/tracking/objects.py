"""`Objects`: keeps logged values that no file can hold, until the trackers have them."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Any, Final

MOST_KEPT: Final = 1000
"""The most values that are kept. Beyond that, the oldest ones are dropped."""


class Objects:
    """Values of an SDK's own types, such as tables and pictures, on their way to that SDK.

    The journal only notes them. Deliveries in other processes and replays do not have them.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, set[str]]] = {}
        self._number = 0
        self._lock = Lock()

    def keep(self, value: Any, takers: Iterable[str]) -> int:
        """Keep `value` for the trackers with these names, and return its number."""
        with self._lock:
            self._number += 1
            self._kept[self._number] = (value, set(takers))
            if len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            return self._number

    def take(self, number: int, taker: str) -> Any:
        """Return the value with this number, once for each tracker; `None` if it is not here."""
        with self._lock:
            value, takers = self._kept.get(number, (None, set()))
            if taker not in takers:
                return None
            takers.discard(taker)
            if not takers:
                del self._kept[number]
            return value
