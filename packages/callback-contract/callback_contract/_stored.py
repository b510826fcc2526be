"""What the rules for trackers ask: what the store holds, and what was said meanwhile."""

from __future__ import annotations

import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._ending import is_of_an_earlier_rule
from callback_contract._rule import require

PRECISION: Final = 1e-6
"""How exact a store has to keep a value: as one of 32 bits."""


class Stored:
    """What the store holds of the trainings of a case, read once.

    Attributes:
        runs: The runs, oldest first.
        parameters: The parameters of all runs as strings.
    """

    def __init__(self, case: Case) -> None:
        self.runs = case.runs()
        self.parameters = {n: str(v) for run in self.runs for n, v in run.parameters.items()}
        self._stored_name = case.subject.stored_name

    def points(self, name: str) -> list[tuple[int, float]]:
        """Return the points of what was logged as `name`, in whichever run."""
        title = self._stored_name(name)
        return [point for run in self.runs for point in run.points.get(title, ())]

    def text(self, name: str) -> list[tuple[int, str]]:
        """Return the strings that were logged as `name`, in whichever run."""
        title = self._stored_name(name)
        return [point for run in self.runs for point in run.text.get(title, ())]

    def has(self, name: str, step: int, value: float) -> bool:
        """Return whether `value` is stored, of what was logged as `name` at `step`."""
        return any(at == step and same(value, kept) for at, kept in self.points(name))

    def has_under_any_name(self, step: int, value: float) -> bool:
        """Return whether `value` is stored at `step`, whatever it is called."""
        every = (point for run in self.runs for points in run.points.values() for point in points)
        return any(at == step and same(value, kept) for at, kept in every)

    def parameter(self, name: str) -> str | None:
        """Return a parameter as a string, `None` where it is not there.

        The store may have put something before its name: `args/learning_rate`.
        """
        if name in self.parameters:
            return self.parameters[name]
        ends = (f"/{name}", f".{name}", f"|{name}")
        return next((v for n, v in self.parameters.items() if n.endswith(ends)), None)


def same(value: float, kept: float) -> bool:
    """Return whether a store has kept `value` exactly enough."""
    if math.isnan(value):
        return math.isnan(kept)
    return math.isclose(value, kept, rel_tol=PRECISION)


def require_stored(case: Case, name: str, step: int, value: float) -> None:
    """Say that the rule is broken unless `value` was stored at `step`."""
    stored = Stored(case)
    require(
        stored.has(name, step, value),
        f"{name!r} was {value!r} at step {step}, and the store has {stored.points(name)}",
    )


def comes_true(case: Case, holds: Callable[[], object]) -> bool:
    """Return whether something holds by the time that the subject's patience ends."""
    return in_time(holds, case.subject.patience)


def in_time(holds: Callable[[], object], seconds: float = 60.0) -> bool:
    """Return whether something holds within so many seconds, many more than it takes."""
    deadline = monotonic() + seconds
    while not holds():
        if monotonic() > deadline:
            return False
        sleep(0.01)
    return True


@contextmanager
def once(holds: Callable[[], object], there: Path) -> Iterator[None]:
    """Make the file `there` as soon as something holds, or the block is over."""
    over = threading.Event()

    def wait() -> None:
        in_time(lambda: holds() or over.is_set())
        there.touch()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def said() -> Iterator[list[str]]:
    """Collect the warnings of the block: of all loggers, also those that tell no other.

    What a delivery of an earlier rule warns of, which is in a call of its SDK still, is not heard.
    """
    lines: list[str] = []
    made_by = logging.getLogRecordFactory()

    def note(line: str) -> None:
        if not is_of_an_earlier_rule(threading.current_thread()):
            lines.append(line)

    def noting(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = made_by(*args, **kwargs)
        if record.levelno >= logging.WARNING:
            note(record.getMessage())
        return record

    logging.setLogRecordFactory(noting)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_, **__: note(str(message))
            yield lines
    finally:
        logging.setLogRecordFactory(made_by)
