"""The checkpoints of Lightning: which are new, a directory for each, and our state in them."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

logger = logging.getLogger(__name__)

KEY: Final = "callback_lightning"
"""The key of our state in a checkpoint of Lightning."""

FILE: Final = "lightning.ckpt"
"""The name of the file in a checkpoint that a callback has asked for."""


class Checkpoints:
    """Collects the checkpoints of a step, and makes a directory for each.

    Callbacks get a directory for each checkpoint, which trackers may upload. Lightning writes all
    files into one directory. So this links each file into a directory of its own, beside it.

    Args:
        tell: Logs a warning, once.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._written: dict[str, int] = {}  # when each file was written
        self._pending: list[Path | None] = []
        self._own: Path | None = None

    def note(self, checkpoint_callback: Any) -> None:
        """Collect what a `ModelCheckpoint`, or a callback with such attributes, has saved."""
        paths = {
            *(getattr(checkpoint_callback, "best_k_models", None) or {}),
            getattr(checkpoint_callback, "best_model_path", None),
            getattr(checkpoint_callback, "last_model_path", None),
        }
        found = []
        for path in filter(None, paths):
            with suppress(OSError):  # it does not exist, or not on this machine
                written = os.lstat(path).st_mtime_ns
                if self._written.get(path) != written and not os.path.islink(path):
                    self._written[path] = written
                    found.append((written, Path(path)))
        self._pending += [path for _, path in sorted(found)] or [None]

    def add(self, directory: Path) -> None:
        """Collect a checkpoint that is a directory."""
        self._pending.append(directory)

    def take(self) -> Iterator[str | None]:
        """Yield the directory of each checkpoint, which stays until the next one, or `clear`."""
        pending, self._pending = self._pending, []
        for path in pending:
            try:
                yield None if path is None else str(self._directory_of(path))
            except OSError as error:
                self._tell(f"A checkpoint no longer exists, so trackers do not get it: {error}")
            if path is None:
                self._tell(
                    "ModelCheckpoint has saved, but there is no new file. Trackers do not get "
                    "checkpoints that are on other machines or are written in the background."
                )

    def clear(self) -> None:
        """Forget what was collected, and delete the directory that was made last."""
        self._pending = []
        self._delete_own()

    def _directory_of(self, checkpoint: Path) -> Path:
        self._delete_own()
        if checkpoint.is_dir():
            return checkpoint
        self._own = Path(mkdtemp(prefix=".callback-lightning-", dir=checkpoint.parent))
        directory = self._own / checkpoint.stem
        directory.mkdir()
        try:
            os.link(checkpoint, directory / checkpoint.name)
        except OSError:  # a file system without hard links
            shutil.copy2(checkpoint, directory / checkpoint.name)
        return directory

    def _delete_own(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


def state_in(path: Any) -> Mapping[str, Any] | None:
    """Return our state in the checkpoint at `path`, if it has one. This reads no tensors."""
    import torch  # Lightning has imported it

    if path is None or not os.path.isfile(path):
        return None
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:
        logger.warning(
            "The runs of trackers in %s cannot be read, so the newest run in the output directory "
            "that saved at this step continues. LightningCallbacks can always read them: %r",
            path,
            error,
        )
        return None
    found: Mapping[str, Any] | None = content.get(KEY)
    return found
