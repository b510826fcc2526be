"""A terminal, and what is drawn in it."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_COUNT: Final = re.compile(r"(\d+)/(\d+)")


class Terminal(io.StringIO):
    """A terminal, wide enough for all that is written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


@contextmanager
def watched(terminal: bool = True) -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Take standard output and standard error, as terminals or as pipes, without tqdm's pauses."""
    kind = Terminal if terminal else io.StringIO
    was = {name: os.environ.get(name) for name in ("TQDM_MININTERVAL", "TQDM_DISABLE")}
    os.environ.pop("TQDM_DISABLE", None)
    import tqdm

    monitor, tqdm.tqdm.monitor_interval = tqdm.tqdm.monitor_interval, 0
    try:
        with (
            contextlib.redirect_stdout(kind()) as output,
            contextlib.redirect_stderr(kind()) as error,
        ):
            yield output, error
    finally:
        tqdm.tqdm.monitor_interval = monitor
        for name, value in was.items():
            if value is not None:
                os.environ[name] = value


def screen(text: str) -> list[str]:
    """Return the lines that a terminal shows once this was written to it."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\r|\n|\x1b\[A|[^\r\n\x1b]+", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif part == "\x1b[A":
            row -= 1
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return lines


def counts(text: str) -> list[tuple[int, int]]:
    """Return the counts `n/total` that were drawn, in order."""
    return [(int(n), int(total)) for n, total in _COUNT.findall(text)]
