"""Failures of a disk: which errors they are, and how much space is free."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Final

_FAILURES: Final = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES",
        "EBUSY",
        "EDQUOT",
        "EEXIST",
        "EFBIG",
        "EIO",
        "EMFILE",
        "ENFILE",
        "ENODEV",
        "ENOENT",
        "ENOLCK",
        "ENOSPC",
        "ENOTCONN",
        "ENOTDIR",
        "ENOTEMPTY",
        "ENXIO",
        "EPERM",
        "EREMOTEIO",
        "EROFS",
        "ESTALE",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)  # Windows does not have all
)
"""The errors of a file system that is full, read-only, over a quota, broken or unreachable."""

NO_SPACE: Final = frozenset(getattr(errno, name, -1) for name in ("ENOSPC", "EDQUOT"))
"""The errors that go away if files are deleted."""

_IN_RUST: Final = re.compile(r"\(os error (\d+)\)")


def failure_of_disk(error: BaseException) -> OSError | None:
    """Return the failure of a disk that `error` is or reports, or `None` if it is another error.

    safetensors puts the error of the operating system as text into an error of its own.
    """
    if isinstance(error, OSError):
        return error if error.errno in _FAILURES else None
    if type(error).__name__ == "SafetensorError" and (found := _IN_RUST.search(str(error))):
        number = int(found[1])
        return OSError(number, os.strerror(number)) if number in _FAILURES else None
    return None


def free_space(directory: Path) -> str:
    """Return in words how much space is free for `directory`, which need not exist."""
    for place in (directory, *directory.absolute().parents):
        try:
            free = shutil.disk_usage(place).free
        except OSError:
            continue
        for unit in ("bytes", "kB", "MB"):
            if free < 10_000:
                return f"{free:,} {unit}"
            free //= 1000
        return f"{free:,} GB"
    return "an unknown amount"
