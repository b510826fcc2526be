"""The checkpoints of Lightning: which one is new, a directory of it, and our state in it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

logger = logging.getLogger(__name__)

KEY: Final = "callback_lightning"
"""The key of our state in a checkpoint of Lightning."""

FILE: Final = "lightning.ckpt"
"""The file in a checkpoint for which a callback has asked."""


class Checkpoints:
    """Finds the checkpoints that a `ModelCheckpoint` has saved, and makes directories of them.

    Callbacks get a directory for each checkpoint, which trackers may upload. Lightning writes files
    into one directory. So the last file is linked into a directory of its own, beside it.
    """

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._own: Path | None = None

    def new_ones(self, checkpoint_callback: Any) -> list[Path]:
        """Return the files and directories that are new or were written again, oldest first.

        Args:
            checkpoint_callback: A `ModelCheckpoint`, or another callback with such attributes.
        """
        paths = {
            *(getattr(checkpoint_callback, "best_k_models", None) or {}),
            getattr(checkpoint_callback, "best_model_path", None),
            getattr(checkpoint_callback, "last_model_path", None),
        }
        found = []
        for path in filter(None, paths):
            with suppress(OSError):  # it is not there, or not on this machine
                written = os.lstat(path).st_mtime_ns
                if self._known.get(path) != written and not os.path.islink(path):
                    self._known[path] = written
                    found.append((written, Path(path)))
        return [path for _, path in sorted(found)]

    def directory_of(self, checkpoint: Path) -> Path:
        """Return a directory with the checkpoint; it stays until the next call, or `clear`."""
        self.clear()
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

    def clear(self) -> None:
        """Delete the directory that was made last."""
        own, self._own = self._own, None
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)


def state_in(path: Any) -> Mapping[str, Any] | None:
    """Return our state in the checkpoint at `path`, without reading its tensors; `None` if none."""
    import torch  # Lightning has imported it

    if path is None or not os.path.isfile(path):
        return None
    try:
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:
        logger.warning(
            "The runs of trackers in %s cannot be read, so the newest run in the output directory "
            "that was at this step continues. LightningCallbacks reads them in any case: %r",
            path,
            error,
        )
        return None
    found: Mapping[str, Any] | None = content.get(KEY)
    return found
