"""The level of the messages of a training: `log_level`, `log_level_replica`, `log_on_each_node`."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LEVELS: Final = {
    "detail": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "passive": None,
}
"""The levels by transformers' names. `passive` leaves the level as it is."""

_LOGGERS: Final = ("callback_core", "trainer_torch")


def current_level() -> int:
    """Return the level that messages of the Trainer have now."""
    return logging.getLogger("trainer_torch").getEffectiveLevel()


@contextmanager
def level_set(level: int | None) -> Iterator[None]:
    """Set the level of the loggers of `callback_core` and `trainer_torch`, and restore it.

    Messages are written to standard error if the program has not set up `logging`. Otherwise it
    would show warnings only.

    Args:
        level: The level; `None` changes nothing.
    """
    if level is None:
        yield
        return
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    handler = _ToStandardError()
    added = [name for name in before if not logging.getLogger(name).hasHandlers()]
    for name in before:
        logging.getLogger(name).setLevel(level)
    for name in added:
        logging.getLogger(name).addHandler(handler)
    try:
        yield
    finally:
        for name in added:
            logging.getLogger(name).removeHandler(handler)
        for name, former in before.items():
            logging.getLogger(name).setLevel(former)


def at_log_level(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], R]:
    """Return a method of the Trainer that runs with the level that its arguments ask for."""

    @functools.wraps(method)
    def at_level(self: Any, *args: P.args, **kwargs: P.kwargs) -> R:
        with level_set(self.args.chosen_log_level()):
            return method(self, *args, **kwargs)

    return at_level


class _ToStandardError(logging.Handler):
    """Writes to the current standard error, because a progress bar may have replaced it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if sys.stderr is not None:
                sys.stderr.write(f"{self.format(record)}\n")
        except Exception:
            self.handleError(record)
