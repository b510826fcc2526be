"""A proxy that makes chosen calls of the author's tracker fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from callback_core.tracking import Tracker, TrackerCallback

Calls = Mapping[str, Collection[int]]
"""For each method, the numbers of the calls that fail. The first call is 1."""

EVERY_CALL: Final = range(1, 1_000_000)

_SENDING: Final = {"open", "log_parameters", "close"} | {
    f"log_{kind}" for kind in ("metrics", "text", "summary", "files")
}
"""The methods whose calls can fail."""


class FaultyTracker(Tracker):
    """Forwards each call to another tracker, and raises `ConnectionError` for some.

    It has the name and the module of the other tracker's class, so that another process makes that.

    Args:
        tracker: The other tracker.
        calls: The calls that fail.
        after: Whether a call fails after the other tracker has done it, as if the answer were lost.
    """

    def __init__(self, tracker: Tracker, calls: Calls, after: bool) -> None:
        self._tracker, self._calls, self._after = tracker, calls, after
        self._counts: Counter[str] = Counter()
        self.limits = replace(tracker.limits, batch_size=2, deliver_every=0.01, retry_after=0.01)

    def __getattribute__(self, name: str) -> Any:
        """Return the other tracker's attribute, except for `_OWN`."""
        if name in _OWN or name.startswith("__"):
            return super().__getattribute__(name)
        found = getattr(self._tracker, name)
        return self._failing(name, found) if name in _SENDING else found

    def __setattr__(self, name: str, value: Any) -> None:
        """Set the other tracker's attribute, except for `_OWN`."""
        if name in _OWN:
            super().__setattr__(name, value)
        else:
            setattr(self._tracker, name, value)

    def _failing(self, name: str, method: Any) -> Any:
        def call(*arguments: Any) -> Any:
            self._counts[name] += 1
            fails = self._counts[name] in self._calls.get(name, ())
            if fails and not self._after:
                raise ConnectionError(f"{name} does not reach its service")
            answer = method(*arguments)
            if fails:
                raise ConnectionError(f"the answer to {name} is lost")
            return answer

        call.__name__ = name
        return call


_OWN: Final = ("_tracker", "_calls", "_after", "_counts", "_failing", "limits")


def make_faulty(callback: TrackerCallback, calls: Calls, *, after: bool = False) -> None:
    """Replace a callback's tracker with a `FaultyTracker`, and deliver in this process."""
    kind = type(callback.tracker)
    identity = {name: getattr(kind, name) for name in ("__module__", "__qualname__")}
    faulty: Any = type(kind.__name__, (FaultyTracker,), identity)
    callback.tracker = faulty(callback.tracker, calls, after)
    if callback.options.delivery == "process":
        callback.options.delivery = "thread"
