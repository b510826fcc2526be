"""`UploadWarnings`: what a training says about its uploads to a store."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from callback_core.tracking import Redaction
from trainer_torch.messages import listed

logger = logging.getLogger(__name__)

TOLD_AFTER: Final = 3
"""The number of failures in a row after which there is a warning."""


class UploadWarnings:
    """Warns of what goes wrong with uploads.

    Args:
        place: What the store is called.
        output_dir: The local directory.
    """

    def __init__(self, place: str, output_dir: Path) -> None:
        self._place, self._output_dir = place, output_dir
        self._told: set[str] = set()

    def failed(self, failures: int, error: str) -> None:
        """Warn that uploading fails, at one of several failures in a row."""
        if failures == TOLD_AFTER:
            logger.warning(
                "Uploading to %s has failed %d times: %s. Training continues, and the upload is "
                "tried again. Until it works, checkpoints are only in %s. Check the network and "
                "the credentials.",
                self._place,
                failures,
                error,
                self._output_dir,
            )

    def works_again(self, failures: int) -> None:
        """Say that uploading works again after a number of failures, if a warning named them."""
        if failures >= TOLD_AFTER:
            logger.warning("Uploading to %s works again.", self._place)

    def stuck(self, seconds: float) -> None:
        """Warn once that nothing was uploaded for some time, although nothing has failed."""
        self._once(
            "Nothing was uploaded to %s for %.0f s, although files wait for that. There was no "
            "error. Training continues. Until uploading works, checkpoints are only in %s. Check "
            "the network.",
            self._place,
            seconds,
            self._output_dir,
        )

    def files_failed(self, errors: Mapping[str, str]) -> None:
        """Warn once that files beside the checkpoints could not be uploaded."""
        for name, error in errors.items():
            self._once(
                "%s in %s could not be uploaded to %s: %s. Training continues, checkpoints are "
                "uploaded without it and %d others, and they are tried again.",
                name,
                self._output_dir,
                self._place,
                error,
                len(errors) - 1,
            )

    def added_failed(self, path: str, error: str) -> None:
        """Warn once that a file that a callback added to a checkpoint could not be uploaded."""
        self._once(
            "%s could not be uploaded to %s: %s. A callback added this file, so the checkpoint is "
            "uploaded without it. The same may hold for later checkpoints.",
            path,
            self._place,
            error,
        )

    def not_deleted(self, error: str) -> None:
        """Warn once that a checkpoint in the store could not be deleted."""
        self._once(
            "A checkpoint over save_total_limit could not be deleted from %s: %s. Training "
            "continues, and tries again after the next upload. Check whether you may delete there.",
            self._place,
            error,
        )

    def is_gone(self, checkpoint: Path) -> None:
        """Warn that a checkpoint cannot be uploaded because it was deleted."""
        logger.warning(
            "%s was deleted before it was uploaded, so %s does not get it. Training continues, and "
            "newer checkpoints are uploaded. Do not delete checkpoints during a training: set "
            "save_total_limit.",
            checkpoint,
            self._place,
        )

    def waits(self, seconds: float, checkpoints: int, size: int) -> None:
        """Say that the end of a training waits for uploads.

        Args:
            seconds: How long it has been waiting.
            checkpoints: The number of checkpoints to upload.
            size: The number of bytes uploaded so far.
        """
        logger.warning(
            "The training has ended, but has been waiting for uploads to %s for %.0f s. "
            "Checkpoints left: %d. Uploaded so far: %.1f MB. Ctrl-C ends the wait, and leaves the "
            "rest in %s.",
            self._place,
            seconds,
            checkpoints,
            size / 1e6,
            self._output_dir,
        )

    def gives_up(self, left: Iterable[str], error: str) -> None:
        """Warn that the end of a training no longer waits for uploads.

        Args:
            left: The names of what is not uploaded, as far as they are known.
            error: The last error; empty if there was none.
        """
        logger.warning(
            "Nothing was uploaded to %s for upload_timeout seconds, so the training no longer "
            "waits. Not uploaded: %s. These files are only in %s: keep that directory, or copy "
            "them from there. %s",
            self._place,
            listed(left) or "the files beside the checkpoints",
            self._output_dir,
            f"The last error was {error}." if error else "There was no error.",
        )

    def _once(self, message: str, *values: object) -> None:
        if message not in self._told:
            self._told.add(message)
            logger.warning(message, *values)


def described(error: Exception) -> str:
    """Return an error in words, without secrets."""
    return str(Redaction().of(f"{type(error).__name__}: {error}"))
