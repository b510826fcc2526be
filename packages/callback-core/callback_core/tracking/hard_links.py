"""`linked_copy`: keeps a directory that somebody else may delete at any time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

_SMALL: Final = 2**20
"""Files of up to this many bytes are copied, which takes no longer than a millisecond or so."""


def linked_copy(directory: Path, target: Path) -> None:
    """Make `target` a copy of `directory` that takes hardly any time or space.

    Its large files are hard links. They stay when the originals are deleted, but change if the
    originals are overwritten in place, which `changed_since` finds out. Small files are real
    copies. So are all files on a file system without hard links.
    """
    shutil.copytree(directory, target, copy_function=_linked)


def links_in(directory: Path) -> dict[str, list[int]]:
    """Return size and time of each hard link in `directory`, by its path from there."""
    files = ((path, path.stat()) for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): [known.st_size, known.st_mtime_ns]
        for path, known in files
        if known.st_nlink > 1
    }


def changed_since(directory: Path, links: dict[str, list[int]]) -> list[str]:
    """Return the links that were overwritten since `links_in` returned `links`."""
    found = {name: (directory / name).stat() for name in links}
    return [n for n, now in found.items() if [now.st_size, now.st_mtime_ns] != links[n]]


def _linked(source: str, target: str) -> None:
    if os.path.getsize(source) <= _SMALL:
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
