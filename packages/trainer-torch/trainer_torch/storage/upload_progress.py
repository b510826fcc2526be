"""`UploadProgress`: how much is uploaded, and when the last part of it was."""

from __future__ import annotations

import time
from collections.abc import Collection


class UploadProgress:
    """How much is uploaded, and when the last part of it was.

    What is uploaded again after a failure is no progress. So a file that fails every time does not
    look like one that is only slow.

    Attributes:
        size: The number of bytes that are uploaded.
        at: The time of the last progress, by `time.monotonic`.
    """

    def __init__(self) -> None:
        self.size, self.at = 0, time.monotonic()
        self._furthest: dict[str, int] = {}  # the bytes of files that are not yet uploaded

    def note(self, path: str, sent: int) -> None:
        """Note that the first `sent` bytes of the file at `path` are uploaded."""
        new = sent - self._furthest.get(path, 0)
        if new > 0:
            self._furthest[path] = sent
            self.size += new
            self.note_now()

    def note_now(self) -> None:
        """Note that there is progress now, or that there is something to upload from now on."""
        self.at = time.monotonic()

    def finish(self, failed: Collection[str]) -> None:
        """Note that all files are uploaded but `failed`. To upload one again is progress."""
        self._furthest = {path: sent for path, sent in self._furthest.items() if path in failed}
