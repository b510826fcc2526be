"""`Uploader`: uploads checkpoints and the files beside them in a thread."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from callback_core.tracking import Redaction, backoff
from trainer_torch.checkpoint import (
    MANIFEST,
    STATE,
    best_named_in,
    read_json,
    read_manifest,
    surplus,
    written_at,
)
from trainer_torch.messages import listed
from trainer_torch.remote import RemoteCheckpoint, RemoteDirectory, size_fault
from trainer_torch.remote_files import Stamp, upload_files

logger = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_PAUSE_AT_END: Final = 5.0
"""The longest pause between two attempts once the training waits for them."""

_TOLD_AFTER: Final = 3
"""The number of failures in a row after which there is a warning."""

_TELL_EVERY: Final = 30.0
"""The seconds between two messages while the end of a training waits."""


class Uploader:
    """Uploads the checkpoints of one directory to a store, the newest first.

    Its thread starts with the first request, and ends when nothing is left to do. Errors of the
    store never reach the training: the thread tries again, after pauses that grow, and warns once.

    Args:
        address: The address of the directory in the store.
        output_dir: The directory to which the training writes.
        limit: The number of checkpoints to keep in the store; `None` for all.
    """

    def __init__(self, address: str, output_dir: Path, limit: int | None) -> None:
        self.remote = RemoteDirectory(address, self._note_progress)
        self._output_dir, self._limit = output_dir, limit
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._pending: dict[str, int] = {}  # the number of the request, by the name
        self._requests = 0
        self._files_are_due = False
        self._uploading: str | None = None
        self._there: dict[str, RemoteCheckpoint] | None = None  # checkpoints in the store, by name
        self._uploaded_files: dict[str, Stamp] = {}
        self._failures = 0
        self._failure = ""
        self._is_awaited = False
        self._progress, self._progressed_at = 0, 0.0

    def is_for(self, address: str, output_dir: Path) -> bool:
        """Return whether this uploads the checkpoints of `output_dir` to `address`."""
        return self.remote.address == address.rstrip("/") and self._output_dir == output_dir

    def submit(self, checkpoint: Path) -> None:
        """Upload `checkpoint`, a complete one in the directory, and the files beside it."""
        with self._condition:
            self._requests += 1
            self._pending.pop(checkpoint.name, None)
            self._pending[checkpoint.name] = self._requests
            self._begin()

    def submit_files(self) -> None:
        """Upload the files beside the checkpoints that have changed."""
        with self._condition:
            self._files_are_due = True
            self._begin()

    def may_delete(self, checkpoint: Path) -> bool:
        """Return whether a surplus checkpoint may be deleted from the local directory.

        It may be if it, or a newer one, is whole in the store; if a newer one is, this one is no
        longer uploaded. A checkpoint that is not complete may be deleted too.
        """
        name, manifest = checkpoint.name, read_manifest(checkpoint)
        with self._condition:
            if not manifest:
                return True
            if self._there is None or name == self._uploading:
                return False
            whole = {one.name: one.written for one in self._list_whole()}
            written = written_at(checkpoint)
            if whole.get(name) != written and written > max(whole.values(), default=0.0):
                return False
            self._pending.pop(name, None)
            return True

    def wait(self, patience: float) -> bool:
        """Wait until everything is uploaded, and return whether it is.

        Args:
            patience: The longest time to wait without any progress, in seconds. After that, the
                rest stays in the directory, with a warning.
        """
        told_at = began = time.monotonic()
        with self._condition:
            self._is_awaited, self._progressed_at = True, began
            self._condition.notify_all()
            try:
                while self._thread is not None:
                    now = time.monotonic()
                    left = self._progressed_at + patience - now
                    if left <= 0:
                        self._tell_what_is_left()
                        return False
                    if now - told_at >= _TELL_EVERY:
                        told_at = now
                        self._tell_progress(now - began)
                    self._condition.wait(min(left, _TELL_EVERY))
                return True
            finally:  # also after Ctrl-C
                self._is_awaited, self._thread, self._failures = False, None, 0
                self._pending.clear()
                self._files_are_due = False
                self._condition.notify_all()

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
            self._thread.start()
        self._condition.notify_all()

    def _run(self) -> None:
        while True:
            with self._condition:
                name = self._next()
                if self._is_abandoned:
                    return
                if name is None and not self._files_are_due:
                    self._thread = None
                    self._condition.notify_all()
                    return
                request = self._pending.get(name, 0) if name is not None else 0
                self._uploading = name
                if name is None:
                    self._files_are_due = False
            try:
                self._find_what_is_there()
                if name is None:
                    self._upload_files()
                else:
                    self._upload(name)
            except _Abandoned:
                return
            except Exception as error:  # each store has errors of its own
                self._note_failure(error, files_are_due=name is None)
            else:
                self._note_success(name, request)

    def _next(self) -> str | None:
        """Return the next checkpoint: the newest, or before it the best one that it refers to."""
        if not self._pending:
            return None
        newest = next(reversed(self._pending))
        best = self._best_of(newest)
        return best if best in self._pending else newest

    def _best_of(self, name: str) -> str | None:
        """Return the name of the best checkpoint according to the local checkpoint `name`."""
        with suppress(OSError, ValueError):  # it may have been deleted
            return best_named_in(read_json(self._output_dir / name / STATE))
        return None

    @property
    def _is_abandoned(self) -> bool:
        return self._thread is not threading.current_thread()

    def _check(self) -> None:
        if self._is_abandoned:
            raise _Abandoned

    def _find_what_is_there(self) -> None:
        if self._there is None:
            self._there = {one.name: one for one in self.remote.list_checkpoints()}

    def _list_whole(self) -> list[RemoteCheckpoint]:
        """Return the checkpoints that are whole in the store, the oldest first."""
        found = (self._there or {}).values()
        whole = [one for one in found if one.find_fault() is None]
        return sorted(whole, key=lambda one: one.written)

    def _upload_files(self) -> None:
        upload_files(self.remote, self._output_dir, self._uploaded_files, self._check)

    def _upload(self, name: str) -> None:
        """Upload the checkpoint `name`, its manifest last."""
        assert self._there is not None
        checkpoint = self._output_dir / name
        try:
            content = (checkpoint / MANIFEST).read_bytes()
        except FileNotFoundError:
            logger.warning(
                "%s was deleted before it was uploaded, so %s does not get it. Training "
                "continues, and newer checkpoints are uploaded. Do not delete checkpoints during "
                "a training: set save_total_limit.",
                checkpoint,
                self.remote,
            )
            return
        local = RemoteCheckpoint(self.remote, name, content, {})
        whole = [one for one in self._list_whole() if one.name != name or one.content == content]
        if any(one.name == name for one in whole) or self._is_surplus(local, whole):
            return
        self._remove(name)
        for file in local.manifest["files"]:
            self._check()
            self.remote.upload(checkpoint / file, f"{name}/{file}")
        sizes = self.remote.checkpoint(name).sizes
        if fault := size_fault(local.manifest["files"], sizes):
            raise OSError(f"{fault} after the upload of {name}")
        self._upload_files()
        if read_manifest(checkpoint) != local.manifest:  # it was saved again meanwhile
            self._upload(name)
            return
        self._check()
        self.remote.write(f"{name}/{MANIFEST}", content)
        with self._condition:
            self._there[name] = RemoteCheckpoint(self.remote, name, content, sizes)
        logger.info("Uploaded %s to %s.", name, self.remote)
        partial = [one.name for one in self._there.values() if one.find_fault()]
        leftovers = [] if self._limit is None else [*partial]  # of processes that were killed
        for old in [*leftovers, *self._surplus(self._list_whole())]:
            self._check()
            self._remove(old)

    def _remove(self, name: str) -> None:
        """Remove the checkpoint `name` from the store, if any of its files is there."""
        assert self._there is not None
        if name in self._there:
            with self._condition:  # until all of it is removed, it is not whole
                self._there[name] = RemoteCheckpoint(self.remote, name, b"", {})
            self.remote.remove_checkpoint(name)
            with self._condition:
                del self._there[name]

    def _is_surplus(self, local: RemoteCheckpoint, whole: list[RemoteCheckpoint]) -> bool:
        """Return whether the limit would remove the checkpoint as soon as it is uploaded."""
        found = sorted([*whole, local], key=lambda one: one.written)
        return found[-1] is not local and local.name in self._surplus(found)

    def _surplus(self, whole: Sequence[RemoteCheckpoint]) -> list[str]:
        """Return which of the checkpoints, the oldest first, are over the limit.

        The newest one is never among them, nor is the best one according to it or to one that is
        not yet uploaded.
        """
        if self._limit is None or len(whole) <= self._limit:
            return []
        newest = whole[-1].name
        with self._condition:
            kept = {self._best_of(name) for name in (newest, *self._pending)}
        if not (self._output_dir / newest).exists():
            kept.add(best_named_in(json.loads(self.remote.read(f"{newest}/{STATE}"))))
        return surplus([(one.name, one.is_finite) for one in whole], self._limit, kept)

    def _note_progress(self, size: int) -> None:
        with self._condition:
            self._progress += size
            self._progressed_at = time.monotonic()

    def _note_success(self, name: str | None, request: int) -> None:
        with self._condition:
            self._uploading, self._progressed_at = None, time.monotonic()
            if name is not None and self._pending.get(name) == request:
                del self._pending[name]
            failures, self._failures = self._failures, 0
        if failures >= _TOLD_AFTER:
            logger.warning("Uploading to %s works again.", self.remote)

    def _note_failure(self, error: Exception, files_are_due: bool) -> None:
        """Warn of errors once, and pause before the next attempt."""
        with self._condition:
            self._uploading = None
            self._files_are_due |= files_are_due
            self._failures += 1
            self._failure = str(Redaction().of(f"{type(error).__name__}: {error}"))
            if self._failures == _TOLD_AFTER:
                logger.warning(
                    "Uploading to %s has failed %d times: %s. Training continues, and the upload "
                    "is tried again. Until it works, checkpoints are only in %s. Check the "
                    "network and the credentials.",
                    self.remote,
                    self._failures,
                    self._failure,
                    self._output_dir,
                )
            pause = backoff(self._failures, _FIRST_PAUSE, _LONGEST_PAUSE)
            self._condition.wait_for(lambda: self._is_abandoned or self._is_awaited, pause)
            if self._is_awaited:
                pause = min(pause, _PAUSE_AT_END)
                self._condition.wait_for(lambda: self._is_abandoned, pause)

    def _tell_progress(self, seconds: float) -> None:
        logger.warning(
            "The training has ended, but has been waiting for uploads to %s for %.0f s. "
            "Checkpoints left: %d. Uploaded so far: %.1f MB. Ctrl-C ends the wait, and leaves "
            "the rest in %s.",
            self.remote,
            seconds,
            len(self._pending),
            self._progress / 1e6,
            self._output_dir,
        )

    def _tell_what_is_left(self) -> None:
        left = listed(reversed(self._pending)) or "the files beside the checkpoints"
        logger.warning(
            "Nothing was uploaded to %s for upload_timeout seconds, so the training no longer "
            "waits. Not uploaded: %s. These files are only in %s: keep that directory, or copy "
            "them from there. %s",
            self.remote,
            left,
            self._output_dir,
            f"The last error was {self._failure}." if self._failures else "There was no error.",
        )


class _Abandoned(Exception):
    """The training no longer waits for this thread."""
