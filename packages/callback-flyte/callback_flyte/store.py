"""What is kept in the checkpoint of a Flyte task, and how it is found there again.

A task has one place for checkpoints, and an attempt is told that of the attempt before it. There
are directories in it as the trainer wrote them, `checkpoint-<step>`, and a file that names the
newest one that was uploaded to its end. transformers uploads each over the one before; an attempt
that dies meanwhile leaves a mixture of two.
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
    """Return the newest checkpoint of the attempt of this task that was interrupted, downloaded.

    It is `None` at the first attempt, and where the one before has left no whole checkpoint, so
    that `trainer.train(resume_from_checkpoint=restored_checkpoint())` is right in any attempt.

    Raises:
        ModuleNotFoundError: flytekit is not installed.
        NotConfigured: No task runs in this thread, or it has no place for checkpoints.
        Exception: What flytekit raises where there may be a checkpoint and it cannot be downloaded:
            to begin anew would cost what was trained so far.
    """
    checkpoint = checkpoint_of(running_task("restored_checkpoint"), "restored_checkpoint")
    root = download(checkpoint)
    if root is None:
        return None
    newest = _newest_in(root)
    if newest is None:
        logger.warning("The attempt before has left no whole checkpoint: training begins anew.")
    return newest


def download(checkpoint: Any) -> Path | None:
    """Return where all that the attempt before has kept lies now; `None` if it has kept nothing."""
    nothing_there = import_module("flytekit.exceptions.user").FlyteDataNotFoundException
    try:
        root: Path | None = checkpoint.restore()
    except nothing_there:
        return None
    return root


def _newest_in(root: Path) -> Path | None:
    """Return the checkpoint that was uploaded last, if all of it is there."""
    try:
        noted = json.loads((root / NEWEST).read_text("utf-8"))
        directory, sizes = root / noted["name"], dict(noted["sizes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return directory if sizes_in(directory).items() >= sizes.items() else None


def sizes_in(directory: Path) -> dict[str, int]:
    """Return the bytes of each file in a directory, by its path there."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}


class Store:
    """Writes what `restored_checkpoint` finds. Its methods may block and raise.

    Args:
        checkpoint: Flyte's checkpoint of the task.
    """

    def __init__(self, checkpoint: Any) -> None:
        self._checkpoint = checkpoint
        self._said = False

    def put(self, directory: Path) -> None:
        """Upload a checkpoint, of which the parent holds nothing else."""
        name = directory.name
        self._delete(lambda other: other == name)  # a training before may have had one of that name
        self._checkpoint.save(directory.parent)

    def note(self, directory: Path) -> None:
        """Write that this checkpoint is there as a whole, and the newest."""
        noted = {"name": directory.name, "sizes": sizes_in(directory)}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, NEWEST)
            file.write_text(json.dumps(noted), "utf-8")
            self._checkpoint.save(file)

    def keep_only(self, names: Collection[str]) -> None:
        """Delete all other checkpoints, so that restoring downloads no more than it needs."""
        self._delete(lambda other: other.startswith(_PREFIX) and other not in names)

    def _delete(self, is_unwanted: Callable[[str], bool]) -> None:
        """Delete what is unwanted, if that is allowed: it costs space, and no more."""
        try:
            place = str(self._checkpoint._checkpoint_dest).rstrip("/")  # flytekit says it here only  # noqa: SLF001
            contexts = import_module("flytekit.core.context_manager")
            access = contexts.FlyteContextManager.current_context().file_access
            files = access.get_filesystem_for_path(place)
            files.invalidate_cache()
            for path in files.ls(place, detail=False) if files.exists(place) else ():
                if is_unwanted(str(path).rstrip("/").rpartition("/")[2]):
                    files.rm(path, recursive=True)
        except Exception as error:
            if not self._said:
                self._said = True
                logger.warning("Flyte keeps earlier checkpoints too.", exc_info=error)
