"""Uploads and downloads the files beside the checkpoints, such as journals of trackers.

To continue a tracker's run without gaps or duplicate points, a training needs the tracker's journal
and the progress of its delivery. So these files are uploaded before a checkpoint is published.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final

from trainer_torch.checkpoint import is_checkpoint_name
from trainer_torch.remote import RemoteDirectory, retried

logger = logging.getLogger(__name__)

_JOURNAL: Final = "journal.jsonl"
_PROGRESS: Final = ".progress.json"

Stamp = tuple[int, int]
"""The size of a file, and the time of its last change in nanoseconds."""


def list_own_files(output_dir: Path) -> dict[str, Stamp]:
    """Return the files in `output_dir` that belong in a store beside its checkpoints, in order.

    Locks, logs of processes, temporary files and copies of checkpoints are left out. The progress
    of trackers comes first and journals come last, so that a journal in the store always has
    everything that the progress there counts as delivered.
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
                except FileNotFoundError:  # it was just removed
                    continue
                found[(inside / name).as_posix()] = (status.st_size, status.st_mtime_ns)
    return dict(sorted(found.items(), key=lambda one: (_turn(one[0]), one[0])))


def upload_files(
    remote: RemoteDirectory, output_dir: Path, known: dict[str, Stamp], check: Callable[[], None]
) -> None:
    """Upload the files in `output_dir` that have changed.

    Args:
        remote: The directory in the store.
        output_dir: The local directory.
        known: The files as they were last uploaded. This function updates it.
        check: A function that is called before each file. It may raise an error to end this.
    """
    for name, stamp in list_own_files(output_dir).items():
        if known.get(name) != stamp:
            check()
            try:
                remote.upload(output_dir / name, name)
            except FileNotFoundError:
                if (output_dir / name).exists():
                    raise
                continue  # removed since it was listed
            known[name] = stamp


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


def _turn(name: str) -> int:
    return 0 if name.endswith(_PROGRESS) else 2 if name.endswith(_JOURNAL) else 1
