"""Committing a directory to a repository of DagsHub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import Rejected
from callback_dagshub.credentials import imported_dagshub

_MOST_FILES: Final = 100
_MOST_BYTES: Final = 100 * 2**20
"""What DagsHub's client commits at once of a directory."""

_NEVER_TAKEN: Final = (
    "VersioningConflictError",
    "PathConflictError",
    "UnsupportedStageContainerFileError",
)


def commit_directory(uploader: Any, directory: Path, to: str, message: str) -> None:
    """Commit all files of a directory, under DVC; what is there of the same names is replaced.

    Args:
        uploader: DagsHub's `Repo`, whose own upload of a directory draws a bar in the terminal.
        directory: The directory.
        to: Where to in the repository.
        message: The message of the commits, of which DagsHub takes 100 characters.

    Raises:
        Rejected: The repository has something else in that place.
    """
    errors = imported_dagshub("upload.errors")
    never = tuple(getattr(errors, name) for name in _NEVER_TAKEN)
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
            except never as error:
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
