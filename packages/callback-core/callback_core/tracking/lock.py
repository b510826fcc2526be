"""`FileLock`: a lock between processes, which the system releases when its owner dies."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # on Windows, which has no such locks: two processes must not share a run
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_HELD: Final[dict[str, object]] = {}
"""The owners in this process, by path."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_HELD.clear)  # the locks stay with the parent


class Held(BlockingIOError):
    """The lock is held already."""


class FileLock:
    """Holds the lock at `path`, for one owner in one process.

    Child processes do not inherit it, so a worker that outlives its killed parent blocks nobody.

    Raises:
        Held: Somebody holds it already.
        OSError: The file cannot be created.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path.resolve())
        # The system's lock excludes only other processes, and is lost when this process closes any
        # file at the path. So within the process, only the first owner may open the file.
        if _HELD.setdefault(self._path, self) is not self:
            raise Held(f"{path} is held by this process")
        try:
            self._file: int | None = _locked(path)
        except BaseException:
            del _HELD[self._path]
            raise

    def release(self) -> None:
        """Release the lock."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file)
            _HELD.pop(self._path, None)


def _locked(path: Path) -> int:
    """Open the file at `path`, lock it, and return it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if fcntl is not None:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                os.close(file)
                raise Held(f"{path} is held by another process") from error
            _warn_of_missing_locks(path.parent, str(error))
    return file


@cache
def _warn_of_missing_locks(folder: Path, error: str) -> None:
    """Warn, once for each folder, of a file system without locks; some network drives are such."""
    logger.warning(
        "%s is on a file system without locks: %s. Do not let two trainings or replays use it at "
        "the same time.",
        folder,
        error,
    )
