"""Prints the stacks of this process: the lines that each thread executes."""

from __future__ import annotations

import multiprocessing
import os
import sys
import sysconfig
import threading
from contextlib import suppress
from pathlib import Path
from traceback import walk_stack
from types import FrameType
from typing import Final

from trainer_torch.ranks.signals import STACKS

STANDARD_ERROR: Final = 2
"""Its file descriptor. `sys.stderr` may be another file, or wait for a lock."""

_LIBRARIES: Final = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


def say(rank: int, *lines: str) -> None:
    """Write lines to standard error at once."""
    text = "".join(f"[rank {rank}] {line}\n" for line in lines)
    os.write(STANDARD_ERROR, text.encode())


def print_stacks(rank: int, title: str) -> None:
    """Write the stack of each thread, and let the workers of data loaders write theirs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines = [title]
    for ident, innermost in sys._current_frames().items():  # noqa: SLF001 (public)
        lines.append(f"thread {names.get(ident, ident)}, most recent call first:")
        lines += (f"  {_located(frame)}" for frame, _ in walk_stack(innermost))
    say(rank, *lines)
    for child in multiprocessing.active_children():
        if STACKS is not None and child.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(child.pid, STACKS)


def current_code(thread: threading.Thread) -> str:
    """Return the line that a thread executes, and the innermost line outside of libraries."""
    innermost = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 (public)
    stack = [frame for frame, _ in walk_stack(innermost)]
    own = [one for one in stack if not one.f_code.co_filename.startswith(_LIBRARIES)]
    codes = [(one.f_code, one.f_lineno) for one in (*stack[:1], *own[:1])]
    lines = [f"{code.co_name} ({Path(code.co_filename).name}:{line})" for code, line in codes]
    return ", called by ".join(dict.fromkeys(lines))


def _located(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})"
