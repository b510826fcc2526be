"""What becomes of an error in a callback that must not cost the training anything."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import format_exception_only
from typing import Any, Final, Literal, get_args

logger = logging.getLogger(__name__)

OnError = Literal["raise", "isolate"]
"""What an error in a callback does: end the training, or no more than switch the callback off."""

ON_ERROR: Final = get_args(OnError)

PATIENCE: Final = 3
"""An isolated callback is switched off after so many failures in a row at one event."""


class FailureRecord:
    """The failures of one callback.

    Attributes:
        callback: The callback.
        total: How often it failed.
        in_a_row: How often in a row it failed last, by event.
        last: Its last error, in a line.
        off_since: The step at which it was switched off.
    """

    def __init__(self, callback: Any) -> None:
        self.callback = callback
        self.total = 0
        self.in_a_row: Counter[str] = Counter()
        self.last = ""
        self.off_since: int | None = None


class Failures:
    """The failures of isolated callbacks since the training before: its own, and those between."""

    def __init__(self) -> None:
        self._records: dict[int, FailureRecord] = {}  # by the callback's id

    def __getstate__(self) -> dict[str, list[FailureRecord]]:
        """Leave out the ids, of which a copy has others."""
        return {"records": list(self._records.values())}

    def __setstate__(self, state: dict[str, list[FailureRecord]]) -> None:
        """Take over the records, by the ids that their callbacks have here."""
        self._records = {id(record.callback): record for record in state["records"]}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._records)

    def add(self, callback: Any, event: str, step: int, error: Exception) -> FailureRecord:
        """Note a failure of `callback`; the first is logged with its traceback."""
        record = self._records.setdefault(id(callback), FailureRecord(callback))
        record.total += 1
        record.in_a_row[event] += 1
        record.last = " ".join("".join(format_exception_only(error)).split())
        name = type(callback).__name__
        if record.total == 1:
            logger.warning(
                "%s failed in %s at step %d; training goes on without waiting for it.",
                name,
                event,
                step,
                exc_info=error,
            )
        if record.in_a_row[event] == PATIENCE and record.off_since is None:
            record.off_since = step
        return record

    def give_another_chance(self) -> None:
        """Switch all on again, and go on counting."""
        for record in self._records.values():
            record.off_since = None
            record.in_a_row.clear()

    def watched(self, callback: Any, event: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return `method` of `callback`; where that has failed, with a count of what succeeds."""
        record = self._records.get(id(callback))
        if record is None:
            return method

        def watched_method(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            record.in_a_row[event] = 0
            return answer

        return watched_method

    def is_off(self, callback: Any) -> bool:
        """Return whether `callback` has failed so often in a row that it is no longer called."""
        record = self._records.get(id(callback))
        return record is not None and record.off_since is not None

    def report(self) -> str:
        """Return one line that says who failed, how often, how last, and who was switched off."""
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
    """Refuse an `on_error` that does not exist.

    A method of that name, as a callback of some other library may have, is none.

    Raises:
        ValueError: `callback` has such a one.
    """
    chosen: Any = getattr(callback, "on_error", "raise")
    if not callable(chosen) and chosen not in ON_ERROR:
        raise ValueError(
            f"{type(callback).__name__}.on_error is {chosen!r}, it must be one of: "
            f"{', '.join(ON_ERROR)}."
        )


def is_isolated(callback: Any) -> bool:
    """Return whether an error in `callback` costs no more than the callback.

    It is asked for in the middle of an error, so that it raises none itself.
    """
    return getattr(callback, "on_error", None) == "isolate"


@contextmanager
def isolating(callback: Any, consequence: str) -> Iterator[None]:
    """Raise an error of `callback` or, where it is isolated, log it with its `consequence`."""
    try:
        yield
    except Exception:
        if not is_isolated(callback):
            raise
        logger.warning("%s: %s.", type(callback).__name__, consequence, exc_info=True)
