"""Commits a directory to a DagsHub repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import Rejected
from callback_dagshub.credentials import import_dagshub

_MOST_FILES: Final = 100
_MOST_BYTES: Final = 100 * 2**20
"""The limits of a single commit, as in DagsHub's own upload of a directory."""

_PERMANENT_ERRORS: Final = (
    "VersioningConflictError",
    "PathConflictError",
    "UnsupportedStageContainerFileError",
)


def commit_directory(uploader: Any, directory: Path, to: str, message: str) -> None:
    """Commit all files of a directory under DVC. Files of the same names are replaced.

    DagsHub's own upload of a directory is not used, because it draws a progress bar.

    Args:
        uploader: DagsHub's `Repo`.
        directory: The directory.
        to: The destination directory in the repository.
        message: The commit message, at most 100 characters.

    Raises:
        Rejected: The repository cannot have these files at the destination.
    """
    errors = import_dagshub("upload.errors")
    permanent = tuple(getattr(errors, name) for name in _PERMANENT_ERRORS)
    for batch in _batches(directory):
        with ExitStack() as stack:
            files = [
                (path.relative_to(directory).as_posix(), stack.enter_context(path.open("rb")))
                for path in batch
            ]
            try:
                uploader.upload_files(
                    files, to, commit_message=message, versioning="dvc", force=True, quiet=True
                )
            except permanent as error:
                raise Rejected(f"{type(error).__name__}: {error.details}") from error


def _batches(directory: Path) -> Iterator[list[Path]]:
    batch: list[Path] = []
    size = 0
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        batch.append(path)
        size += path.stat().st_size
        if len(batch) == _MOST_FILES or size >= _MOST_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
