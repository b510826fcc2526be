"""Looking at something before and after each call of a callback, and at what a training leaves."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from callback_contract._case import Case, Training
from callback_contract._rule import require
from callback_core import TrainerState

_PATIENCE: Final = 10.0
"""Seconds for what a training has started to end, once it is asked to."""

Look = Callable[[Training, dict[str, Any]], Any]
"""Returns what is not to change, of a training and of the keywords of the event."""


class Watched(Training):
    """A training in which nothing that `look` returns may change in a call of the callback.

    Args:
        case: What is checked.
        what: What it looks at, for messages.
        look: Returns it.
        state: The state of the training; a new one where it is not given.
    """

    def __init__(
        self, case: Case, what: str, look: Look, state: TrainerState | None = None
    ) -> None:
        super().__init__([case.make()], case.arguments(), state)
        self._what = what
        self._look = look

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        """Call the callback, and compare."""
        before = deepcopy(self._look(self, keywords))
        answer = super().call(callback, event, keywords)
        after = self._look(self, keywords)
        name = f"{type(callback).__name__}.{event}"
        require(before == after, f"{name} changed {self._what}: {_difference(before, after)}")
        return answer


def elsewhere() -> TrainerState:
    """Return the state of a training in a process that is not the main one."""
    return TrainerState(
        epoch=0.0,
        max_steps=4,
        num_train_epochs=2,
        is_local_process_zero=False,
        is_world_process_zero=False,
    )


def files_below(folder: Path) -> dict[str, bytes]:
    """Return all files below `folder` with their content."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def silence() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Take standard output and standard error, as a pipe would."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as error,
    ):
        yield output, error


@contextmanager
def log_messages() -> Iterator[list[str]]:
    """Take what is logged meanwhile, with its tracebacks."""
    messages: list[str] = []
    handler = logging.Handler()
    formatter = logging.Formatter()
    handler.emit = lambda record: messages.append(formatter.format(record))  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield messages
    finally:
        logging.getLogger().removeHandler(handler)


def what_stays(look: Callable[[], set[Any]], before: set[Any]) -> set[Any]:
    """Return what is there on top of `before`, once it has had time to end."""
    until = time.monotonic() + _PATIENCE
    while (more := look() - before) and time.monotonic() < until:
        time.sleep(0.02)
    return more


def threads() -> set[threading.Thread]:
    """Return the threads of this process."""
    return set(threading.enumerate())


def children() -> set[int]:
    """Return the processes that this one has started, where the system tells."""
    from multiprocessing import active_children, resource_tracker

    known = {child.pid for child in active_children() if child.pid is not None}
    for listed in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            known |= {int(pid) for pid in listed.read_text().split()}
    tracker: Any = resource_tracker._resource_tracker  # Python's own, once for a process
    return known - {tracker._pid}


def open_files() -> set[str]:
    """Return the descriptors that are open, and on what, where the system tells."""
    found = set()
    for descriptor in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):  # that of this listing
            found.add(f"{descriptor.name}: {os.readlink(descriptor)}")
    return found


def _difference(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        changed = sorted(
            str(name)
            for name in before.keys() | after.keys()
            if name not in before or name not in after or before[name] != after[name]
        )
        return ", ".join(changed)
    return f"{before!r} became {after!r}"
