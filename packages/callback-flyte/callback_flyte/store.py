"""Stores checkpoints in the checkpoint location of a Flyte task, and finds them again.

Each attempt of a task has its own checkpoint location, and knows that of the previous attempt. The
location holds the trainer's directories, `checkpoint-<step>`, and a file that names the newest one
that was uploaded completely. transformers uploads each checkpoint over the previous one; an attempt
that dies during an upload then leaves a mixture of both.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Collection
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from callback_flyte.task import checkpoint_of, running_task

logger = logging.getLogger(__name__)

NEWEST: Final = "newest.json"

_PREFIX: Final = "checkpoint-"


def restored_checkpoint() -> Path | None:
    """Download the newest checkpoint of the previous attempt of this task, and return its path.

    Return `None` in the first attempt, or if the previous one left no complete checkpoint. Every
    attempt can therefore call `trainer.train(resume_from_checkpoint=restored_checkpoint())`.

    Raises:
        ModuleNotFoundError: flytekit is not installed.
        NotConfigured: No task runs in this thread, or the task has no checkpoint location.
        Exception: flytekit cannot download the previous attempt's data. Training must not start
            over, because a checkpoint may exist.
    """
    checkpoint = checkpoint_of(running_task("restored_checkpoint"), "restored_checkpoint")
    root = download(checkpoint)
    if root is None:
        return None
    newest = _newest_in(root)
    if newest is None:
        logger.warning("The previous attempt left no complete checkpoint. Training starts over.")
    return newest


def download(checkpoint: Any) -> Path | None:
    """Download what the previous attempt stored, and return its path; `None` if it is nothing."""
    not_found = import_module("flytekit.exceptions.user").FlyteDataNotFoundException
    try:
        root: Path | None = checkpoint.restore()
    except not_found:
        return None
    return root


def _newest_in(root: Path) -> Path | None:
    """Return the newest checkpoint, if it is complete."""
    try:
        noted = json.loads((root / NEWEST).read_text("utf-8"))
        directory, sizes = root / noted["name"], dict(noted["sizes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return directory if sizes_in(directory).items() >= sizes.items() else None


def sizes_in(directory: Path) -> dict[str, int]:
    """Return the size of each file in a directory, in bytes, by relative path."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}


class Store:
    """Writes checkpoints for `restored_checkpoint`. The methods may block and raise.

    Args:
        checkpoint: Flyte's checkpoint of the task.
    """

    def __init__(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint
        self._delete_failed = False

    def put(self, directory: Path) -> None:
        """Upload a checkpoint. Its parent directory must contain nothing else."""
        name = directory.name
        self._delete(lambda other: other == name)  # an earlier training may have used the name
        self._checkpoint.save(directory.parent)

    def note(self, directory: Path) -> None:
        """Record that this checkpoint is complete and the newest."""
        noted = {"name": directory.name, "sizes": sizes_in(directory)}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, NEWEST)
            file.write_text(json.dumps(noted), "utf-8")
            self._checkpoint.save(file)

    def keep_only(self, names: Collection[str]) -> None:
        """Delete all other checkpoints, so that a retry does not download them."""
        self._delete(lambda other: other.startswith(_PREFIX) and other not in names)

    def _delete(self, is_unwanted: Callable[[str], bool]) -> None:
        """Delete unwanted entries. A failure only costs space, so it is logged once."""
        try:
            # flytekit has no public attribute for the location.
            location = str(self._checkpoint._checkpoint_dest).rstrip("/")  # noqa: SLF001
            contexts = import_module("flytekit.core.context_manager")
            access = contexts.FlyteContextManager.current_context().file_access
            files = access.get_filesystem_for_path(location)
            files.invalidate_cache()
            for path in files.ls(location, detail=False) if files.exists(location) else ():
                if is_unwanted(str(path).rstrip("/").rpartition("/")[2]):
                    files.rm(path, recursive=True)
        except Exception as error:
            if not self._delete_failed:
                self._delete_failed = True
                logger.warning("Could not delete earlier checkpoints from Flyte.", exc_info=error)
