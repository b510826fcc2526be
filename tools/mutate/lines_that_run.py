"""Which lines of callback_core run, in this process and in those that it starts."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

Line = tuple[str, int]
"""A module's path in the core, and the number of a line."""

VARIABLE = "CONTRACT_TRACE"
"""Environment variable that says to processes that are started what to trace, and where to."""


class Trace:
    """Notes which lines run, by the module's path in `core`, from now on.

    Args:
        core: The directory of the modules that are looked at.
        into: A directory in which other processes note theirs.
    """

    def __init__(self, core: Path, into: Path) -> None:
        self._into, pid, elsewhere = into, os.getpid(), Noted(into)
        into.mkdir()
        self._ran: set[Line] = set()
        os.environ[VARIABLE] = os.pathsep.join((str(core), str(into)))
        ran = self._ran.add
        trace(core, lambda line: ran(line) if os.getpid() == pid else elsewhere.note(line))

    def taken(self) -> dict[str, list[int]]:
        """Return which lines ran since it was called before."""
        ran = {*self._ran}
        self._ran.clear()
        for file in self._into.iterdir():
            for line in file.read_text().splitlines():
                module, _, at = line.rpartition(":")
                if at.isdigit():  # or cut off: by a kill, or where a rule has filled the disk
                    ran.add((module, int(at)))
            file.unlink()
        lines: dict[str, list[int]] = {}
        for module, number in sorted(ran):
            lines.setdefault(module, []).append(number)
        return lines


class Noted:
    """Notes lines in a file of this process, and of each that is forked from it.

    Args:
        into: The directory of the files.
    """

    def __init__(self, into: Path) -> None:
        self._into, self._pid = into, 0

    def note(self, line: Line) -> None:
        """Note a line, at once: the process may be killed any time."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._known: set[Line] = set()
            self._waiting = bytearray()
            path = self._into / str(self._pid)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        if line not in self._known:
            self._known.add(line)
            self._waiting.extend(f"{line[0]}:{line[1]}\n".encode())
            with suppress(OSError):  # where a rule has filled the disk
                del self._waiting[: os.write(self._file, bytes(self._waiting))]


def trace(core: Path, note: Callable[[Line], Any]) -> None:
    """Have `note` told of each line of `core` that runs, in all threads of this process."""
    begins = str(core) + os.sep

    def look(frame: Any, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename.startswith(begins):
            note((frame.f_code.co_filename[len(begins) : -3], frame.f_lineno))
            return look

    threading.settrace(look)
    sys.settrace(look)


def trace_if_asked() -> None:
    """Trace this process, where the one that has started it says so."""
    if VARIABLE in os.environ:
        core, into = os.environ[VARIABLE].split(os.pathsep)
        trace(Path(core), Noted(Path(into)).note)
