"""Uploads and downloads the files beside the checkpoints, such as journals of trackers.

To continue a tracker's run without gaps or duplicate points, a training needs the tracker's journal
and the progress of its delivery. So these files are uploaded before a checkpoint is published.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from trainer_torch.storage.checkpoint import is_checkpoint_name
from trainer_torch.storage.remote import RemoteDirectory, retried

logger = logging.getLogger(__name__)

_JOURNAL: Final = "journal.jsonl"
_PROGRESS: Final = ".progress.json"

Stamp = tuple[int, int]
"""The size of a file, and the time of its last change in nanoseconds."""


def list_own_files(output_dir: Path) -> dict[str, Stamp]:
    """Return the files in `output_dir` that belong in a store beside its checkpoints, in order.

    Locks, logs of processes, temporary files, copies of checkpoints, and what is no regular file
    are left out. Journals of trackers come first, and their progress last.
    """
    found: dict[str, Stamp] = {}
    for folder, names, files in os.walk(output_dir):
        inside = Path(folder).relative_to(output_dir)
        names[:] = [name for name in names if _may_hold(inside / name)]
        for name in files:
            if not name.startswith(".") and not name.endswith((".lock", ".log")):
                path = Path(folder, name)
                try:
                    status = path.stat()
                except OSError:  # it was just removed, or is a link to nowhere
                    continue
                if stat.S_ISREG(status.st_mode):  # others cannot be read, or only wait for a writer
                    found[(inside / name).as_posix()] = (status.st_size, status.st_mtime_ns)
    return dict(sorted(found.items(), key=lambda one: (-_turn(one[0]), one[0])))


def upload_files(
    remote: RemoteDirectory, output_dir: Path, known: dict[str, Stamp], check: Callable[[], None]
) -> dict[str, Exception]:
    """Upload the files in `output_dir` that have changed, all that the store takes.

    The progress of a tracker is read before its journal is uploaded, and written after it. So a
    journal in the store always has everything that the progress there counts as delivered.

    Args:
        remote: The directory in the store.
        output_dir: The local directory.
        known: The files as they were last uploaded. This function updates it.
        check: A function that is called before each file. It may raise an error to end this.

    Returns:
        The errors of the files that could not be uploaded.
    """
    stamps = list_own_files(output_dir)
    changed = [name for name, stamp in stamps.items() if known.get(name) != stamp]
    failed: dict[str, Exception] = {}
    progress: dict[str, bytes] = {}
    for name in (name for name in changed if name.endswith(_PROGRESS)):
        with suppress(FileNotFoundError):
            progress[name] = (output_dir / name).read_bytes()
    for name in changed:
        check()
        try:
            if not name.endswith(_PROGRESS):
                remote.upload(output_dir / name, name)
            elif name in progress and _journal_beside(name) not in failed:
                remote.write(name, progress[name])
            else:
                continue
        except Exception as error:  # each store has errors of its own
            if (output_dir / name).exists():  # it was not removed since it was listed
                failed[name] = error
        else:
            known[name] = stamps[name]
    return failed


def download_files(remote: RemoteDirectory, output_dir: Path) -> None:
    """Download the files that `upload_files` has uploaded. They replace local ones."""
    files = [name for name in remote.list_files() if _is_own(PurePosixPath(name))]
    for name in sorted(files, key=_turn):
        part = (output_dir / name).with_name(f".{PurePosixPath(name).name}.download")
        _download(remote, name, part)
        part.replace(output_dir / name)
    if files:
        logger.info("Downloaded %d files of trackers and results from %s.", len(files), remote)


def _download(remote: RemoteDirectory, name: str, to: Path) -> None:
    retried(lambda: remote.download(name, to))


def _is_own(path: PurePosixPath) -> bool:
    folders = [Path(*path.parts[: count + 1]) for count in range(len(path.parts) - 1)]
    return ".." not in path.parts and all(_may_hold(folder) for folder in folders)


def _may_hold(folder: Path) -> bool:
    """Return whether files in the relative `folder` belong in a store.

    Folders in `tracking/<run>/files` do not: they are copies of checkpoints that wait for trackers.
    """
    parts = folder.parts
    is_copy = len(parts) >= 4 and parts[-4] == "tracking" and parts[-2] == "files"
    return not (is_copy or is_checkpoint_name(folder.name) or folder.name.startswith("."))


def _journal_beside(name: str) -> str:
    return PurePosixPath(name).with_name(_JOURNAL).as_posix()


def _turn(name: str) -> int:
    return 0 if name.endswith(_PROGRESS) else 2 if name.endswith(_JOURNAL) else 1
