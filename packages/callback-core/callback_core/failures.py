"""Error handling for isolated callbacks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import format_exception_only
from typing import Any, Final, Literal, get_args

logger = logging.getLogger(__name__)

OnError = Literal["raise", "isolate"]
"""What an error in a callback does: end the training, or only switch the callback off."""

ON_ERROR: Final = get_args(OnError)

PATIENCE: Final = 3
"""An isolated callback is switched off after this many failures in a row at one event."""


class FailureRecord:
    """The failures of one callback.

    Attributes:
        callback: The callback.
        total: The number of its failures.
        in_a_row: The number of failures since its last success, by event.
        last: Its last error, in one line.
        off_since: The step at which it was switched off; `None` while it is on.
    """

    def __init__(self, callback: Any) -> None:
        self.callback = callback
        self.total = 0
        self.in_a_row: Counter[str] = Counter()
        self.last = ""
        self.off_since: int | None = None


class Failures:
    """The failures of isolated callbacks since the end of the last training."""

    def __init__(self) -> None:
        self._records: dict[int, FailureRecord] = {}  # by the callback's id

    def __getstate__(self) -> dict[str, list[FailureRecord]]:
        """Leave out the ids, because the callbacks of a copy have others."""
        return {"records": list(self._records.values())}

    def __setstate__(self, state: dict[str, list[FailureRecord]]) -> None:
        """Key the records by the ids of their callbacks."""
        self._records = {id(record.callback): record for record in state["records"]}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._records)

    def add(self, callback: Any, event: str, step: int, error: Exception) -> FailureRecord:
        """Record a failure of `callback`. The first one is logged with its traceback."""
        record = self._records.setdefault(id(callback), FailureRecord(callback))
        record.total += 1
        record.in_a_row[event] += 1
        record.last = " ".join("".join(format_exception_only(error)).split())
        name = type(callback).__name__
        if record.total == 1:
            logger.warning(
                "%s failed in %s at step %d. Training continues.",
                name,
                event,
                step,
                exc_info=error,
            )
        if record.in_a_row[event] == PATIENCE and record.off_since is None:
            record.off_since = step
        return record

    def give_another_chance(self) -> None:
        """Switch all callbacks on again, and keep the totals."""
        for record in self._records.values():
            record.off_since = None
            record.in_a_row.clear()

    def watched(self, callback: Any, event: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return `method`, wrapped to note each success if `callback` has failed before."""
        record = self._records.get(id(callback))
        if record is None:
            return method

        def watched_method(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            record.in_a_row[event] = 0
            return answer

        return watched_method

    def is_off(self, callback: Any) -> bool:
        """Return whether `callback` is switched off."""
        record = self._records.get(id(callback))
        return record is not None and record.off_since is not None

    def report(self) -> str:
        """Return one line: who failed, how often, with which last error, and who is off."""
        return "; ".join(
            f"{type(record.callback).__name__} failed {record.total} time"
            + ("s" if record.total > 1 else "")
            + (
                f" and was switched off at step {record.off_since}"
                if record.off_since is not None
                else ""
            )
            + f" (last: {record.last})"
            for record in self._records.values()
        )


def check_policy(callback: Any) -> None:
    """Refuse an invalid `on_error`.

    A method of that name belongs to some other library and is ignored.

    Raises:
        ValueError: `on_error` is none of the policies.
    """
    chosen: Any = getattr(callback, "on_error", "raise")
    if not callable(chosen) and chosen not in ON_ERROR:
        raise ValueError(
            f"{type(callback).__name__}.on_error is {chosen!r}, it must be one of: "
            f"{', '.join(ON_ERROR)}."
        )


def is_isolated(callback: Any) -> bool:
    """Return whether an error in `callback` must not end the training.

    This never raises, because it is called while an error is handled.
    """
    return getattr(callback, "on_error", None) == "isolate"


@contextmanager
def isolating(callback: Any, consequence: str) -> Iterator[None]:
    """Log an error of an isolated `callback` and its `consequence`; raise that of any other."""
    try:
        yield
    except Exception:
        if not is_isolated(callback):
            raise
        logger.warning("%s: %s.", type(callback).__name__, consequence, exc_info=True)
