"""A lock between processes, which the system gives back when its owner dies."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows has no such locks: there, two processes must not share a run
    fcntl = None  # type: ignore[assignment]

_HELD: Final[set[Path]] = set()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HELD.clear)  # the locks stay with the parent


class Held(BlockingIOError):
    """The lock is held already."""


class FileLock:
    """Holds the lock at `path`, for one owner in one process.

    Child processes do not inherit it: a worker that outlives its killed parent keeps nobody out.

    Raises:
        Held: It is held already.
        OSError: The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self._file: int | None = None
        if self._path in _HELD:  # the system's lock keeps only other processes out
            raise Held(f"{path} is held by this process")
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(file)
                raise Held(f"{path} is held by another process") from error
        self._file = file
        _HELD.add(self._path)

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            _HELD.discard(self._path)
            with suppress(OSError):
                os.close(self._file)
            self._file = None
