"""What becomes of an error in a callback that must not cost the training anything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, get_args

logger = logging.getLogger(__name__)

OnError = Literal["raise", "isolate"]
"""What an error in a callback does: end the training, or no more than switch the callback off."""

ON_ERROR: Final = get_args(OnError)

PATIENCE: Final = 3
"""An isolated callback is switched off after so many failures in a row."""


class Record:
    """The failures of one callback in one training."""

    def __init__(self, callback: Any) -> None:
        self.callback = callback
        self.total = 0
        self.in_a_row = 0
        self.last = ""
        self.off_since: int | None = None


class Failures:
    """The failures of isolated callbacks in one training.

    Attributes:
        records: The callbacks that have failed, by their `id`.
    """

    def __init__(self) -> None:
        self.records: dict[int, Record] = {}

    def add(self, callback: Any, event: str, step: int, error: Exception) -> None:
        """Note a failure of `callback`; the first is logged with its traceback."""
        record = self.records.setdefault(id(callback), Record(callback))
        record.total += 1
        record.in_a_row += 1
        record.last = f"{type(error).__name__}: {error}"
        name = type(callback).__name__
        if record.total == 1:
            logger.warning(
                "%s failed in %s at step %d; training goes on without waiting for it.",
                name,
                event,
                step,
                exc_info=error,
            )
        if record.in_a_row == PATIENCE and record.off_since is None:
            record.off_since = step

    def watched(self, callback: Any, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return `method` of `callback`; where that has failed, with a count of what succeeds."""
        record = self.records.get(id(callback))
        if record is None:
            return method

        def watched_method(*args: Any, **kwargs: Any) -> Any:
            answer = method(*args, **kwargs)
            record.in_a_row = 0
            return answer

        return watched_method

    def is_off(self, callback: Any) -> bool:
        """Return whether `callback` has failed so often in a row that it is no longer called."""
        record = self.records.get(id(callback))
        return record is not None and record.off_since is not None

    def report(self) -> str:
        """Return one line that says who failed, how often, how last, and who was switched off."""
        return "; ".join(
            f"{type(record.callback).__name__} failed {record.total} times"
            + (
                f" and was switched off at step {record.off_since}"
                if record.off_since is not None
                else ""
            )
            + f" (last: {record.last})"
            for record in self.records.values()
        )


def policy(callback: Any) -> OnError:
    """Return what an error in `callback` does, by its `on_error`; `raise` where it has none.

    Raises:
        ValueError: It has one that does not exist.
    """
    chosen: Any = getattr(callback, "on_error", "raise")
    if callable(chosen):  # a method of that name, as a callback of some other library may have
        return "raise"
    if chosen not in ON_ERROR:
        raise ValueError(
            f"{type(callback).__name__}.on_error is {chosen!r}, it must be one of: "
            f"{', '.join(ON_ERROR)}."
        )
    known: OnError = chosen
    return known


@contextmanager
def costs_what_it_may(callback: Any, consequence: str) -> Iterator[None]:
    """Raise an error of `callback` or, where it is isolated, log it with its `consequence`."""
    try:
        yield
    except Exception:
        if policy(callback) != "isolate":
            raise
        logger.warning("%s: %s.", type(callback).__name__, consequence, exc_info=True)
