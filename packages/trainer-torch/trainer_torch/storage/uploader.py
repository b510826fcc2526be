"""`Uploader`: uploads checkpoints and the files beside them in a thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from callback_core.tracking import backoff
from trainer_torch.storage.checkpoint import MANIFEST, read_manifest, written_at
from trainer_torch.storage.remote import RemoteCheckpoint, RemoteDirectory, size_fault
from trainer_torch.storage.remote_files import Stamp, list_own_files, upload_files
from trainer_torch.storage.stored_checkpoints import StoredCheckpoints
from trainer_torch.storage.upload_progress import UploadProgress
from trainer_torch.storage.upload_warnings import TOLD_AFTER, UploadWarnings, described

logger = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_PAUSE_AT_END: Final = 5.0
"""The longest pause between two attempts once the training waits for them."""

_TELL_EVERY: Final = 30.0
"""The seconds between two messages while the end of a training waits."""

_STUCK_AFTER: Final = 600.0
"""The seconds without progress after which a warning comes if the end does not wait at all."""


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
        self._output_dir = output_dir
        self._stored = StoredCheckpoints(self.remote, output_dir, limit)
        self._condition = threading.Condition()
        self._thread: threading.Thread | None = None
        self._pending: dict[str, int] = {}  # the number of the request, by the name
        self._numbers: dict[str, int] = {}  # the same, but of all requests
        self._requests = 0
        self._files_are_due = False
        self._uploading: str | None = None
        self._partly: tuple[str, bytes] = "", b""  # the name and manifest of a checkpoint
        self._parts: set[str] = set()  # the files of it that are uploaded
        self._uploaded_files: dict[str, Stamp] = {}
        self._failed_files: dict[str, str] = {}  # files beside the checkpoints, with their errors
        self._failures = self._failures_of_files = 0
        self._failure = ""
        self._warnings = UploadWarnings(str(self.remote), output_dir)
        self._is_awaited = False
        self._progress = UploadProgress()

    def is_for(self, address: str, output_dir: Path) -> bool:
        """Return whether this uploads the checkpoints of `output_dir` to `address`."""
        return self.remote.address == address.rstrip("/") and self._output_dir == output_dir

    def submit(self, checkpoint: Path) -> None:
        """Upload `checkpoint`, a complete one in the directory, and the files beside it."""
        with self._condition:
            self._requests += 1
            self._pending.pop(checkpoint.name, None)
            self._pending[checkpoint.name] = self._numbers[checkpoint.name] = self._requests
            self._begin()

    def submit_files(self) -> None:
        """Upload the files beside the checkpoints that have changed."""
        with self._condition:
            self._files_are_due = True
            self._begin()

    def may_delete(self, checkpoint: Path) -> bool:
        """Return whether a surplus checkpoint may be deleted from the local directory.

        It may be if it, or a newer one, is complete in the store; if a newer one is, this one is no
        longer uploaded. A checkpoint that is not complete may be deleted too.
        """
        name, manifest = checkpoint.name, read_manifest(checkpoint)
        with self._condition:
            if not manifest:
                return True
            number, written = self._numbers.get(name, 0), written_at(checkpoint)
            if name == self._uploading or not self._stored.covers(name, written, number):
                return False
            self._pending.pop(name, None)
            return True

    def tell_if_stuck(self, patience: float) -> None:
        """Warn once if something waits for its upload, and nothing was uploaded for long.

        Failures of the store have warnings of their own.

        Args:
            patience: The seconds that the end of a training waits without any progress.
        """
        with self._condition:
            seconds = time.monotonic() - self._progress.at
            is_told = self._failures >= TOLD_AFTER or self._failures_of_files > 0
            if self._thread is None or is_told or seconds < (patience or _STUCK_AFTER):
                return
        self._warnings.stuck(seconds)

    def wait(self, patience: float) -> bool:
        """Wait until everything is uploaded, and return whether it is.

        Args:
            patience: The longest time to wait without any progress, in seconds. After that, the
                rest stays in the directory, with a warning.
        """
        told_at = began = time.monotonic()
        with self._condition:
            self._is_awaited = True
            self._progress.note_now()
            self._condition.notify_all()
            try:
                while self._thread is not None:
                    now = time.monotonic()
                    left = self._progress.at + patience - now
                    if left <= 0:
                        self._tell_what_is_left()
                        return False
                    if now - told_at >= _TELL_EVERY:
                        told_at = now
                        self._warnings.waits(now - began, len(self._pending), self._progress.size)
                    self._condition.wait(min(left, _TELL_EVERY))
                return True
            finally:  # also after Ctrl-C
                self._is_awaited, self._thread = False, None
                self._failures = self._failures_of_files = 0
                self._pending.clear()
                self._files_are_due = False
                self._condition.notify_all()

    def _begin(self) -> None:
        if self._thread is None:
            self._progress.note_now()
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
                self._stored.find()
                if name is None:
                    self._upload_files()
                else:
                    self._upload(name, request)
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
        best = self._stored.best_of(newest)
        return best if best in self._pending else newest

    @property
    def _is_abandoned(self) -> bool:
        return self._thread is not threading.current_thread()

    def _check(self) -> None:
        if self._is_abandoned:
            raise _Abandoned

    def _upload_files(self) -> None:
        """Upload the files beside the checkpoints, all that the store takes."""
        failed = upload_files(self.remote, self._output_dir, self._uploaded_files, self._check)
        with self._condition:
            self._progress.finish(failed)
            self._failed_files = {name: described(error) for name, error in failed.items()}
            self._files_are_due |= bool(failed)
            self._failures_of_files = self._failures_of_files + 1 if failed else 0
        self._warnings.files_failed(self._failed_files)

    def _upload(self, name: str, request: int) -> None:
        """Upload the checkpoint `name`, its manifest last."""
        checkpoint = self._output_dir / name
        try:
            content = (checkpoint / MANIFEST).read_bytes()
        except FileNotFoundError:
            self._warnings.is_gone(checkpoint)
            return
        local = RemoteCheckpoint(self.remote, name, content, {})
        stored = self._stored.complete()
        is_there = any((one.name, one.content) == (name, content) for one in stored)
        if is_there or self._stored.is_surplus(local, request, list(self._pending)):
            return
        sizes = self._upload_parts(local)
        self._upload_files()
        if read_manifest(checkpoint) != local.manifest:  # it was saved again meanwhile
            self._upload(name, request)
            return
        self._check()
        self.remote.write(f"{name}/{MANIFEST}", content)
        self._stored.add(RemoteCheckpoint(self.remote, name, content, sizes), request)
        self._partly = "", b""
        logger.info("Uploaded %s to %s.", name, self.remote)
        if error := self._stored.remove_surplus(list(self._pending), self._check):
            self._warnings.not_deleted(described(error))

    def _upload_parts(self, local: RemoteCheckpoint) -> Mapping[str, int]:
        """Upload the files of a checkpoint but its manifest, and return the sizes in the store.

        Those that an earlier attempt has uploaded are not uploaded again.
        """
        name, files = local.name, local.manifest["files"]
        if self._partly != (name, local.content):
            self._stored.begin(name)
            self._partly, self._parts = (name, local.content), set()
        for file in files:
            if file not in self._parts:
                self._check()
                self.remote.upload(self._output_dir / name / file, f"{name}/{file}")
                self._note_progress(f"{name}/{file}", files[file]["size"])
                self._parts.add(file)
        self._upload_added(name, files)
        sizes = self.remote.checkpoint(name).sizes
        if fault := size_fault(files, sizes):
            self._parts.clear()
            raise OSError(f"{fault} after the upload of {name}")
        return sizes

    def _upload_added(self, name: str, files: Collection[str]) -> None:
        """Upload what callbacks have added to a checkpoint, which is complete without that.

        Args:
            name: The name of the checkpoint.
            files: The files that its manifest lists.
        """
        folder = self._output_dir / name
        for file, (size, _) in list_own_files(folder).items():
            if file in files or file == MANIFEST or file in self._parts:
                continue
            self._check()
            try:
                self.remote.upload(folder / file, f"{name}/{file}")
            except Exception as error:  # each store has errors of its own
                if (folder / file).exists():  # it was not removed since it was listed
                    self._warnings.added_failed(f"{name}/{file}", described(error))
            else:
                self._note_progress(f"{name}/{file}", size)
                self._parts.add(file)

    def _note_progress(self, path: str, sent: int) -> None:
        with self._condition:
            self._progress.note(path, sent)

    def _note_success(self, name: str | None, request: int) -> None:
        with self._condition:
            self._uploading = None
            if name is not None and self._pending.get(name) == request:
                del self._pending[name]
            if name is None and self._failed_files:
                self._pause(self._failures_of_files, lambda: bool(self._pending))
                return
            self._progress.note_now()
            failures, self._failures = self._failures, 0
        self._warnings.works_again(failures)

    def _note_failure(self, error: Exception, files_are_due: bool) -> None:
        """Warn of errors once, and pause before the next attempt."""
        with self._condition:
            self._uploading = None
            self._files_are_due |= files_are_due
            self._failures += 1
            self._failure = described(error)
            self._warnings.failed(self._failures, self._failure)
            self._pause(self._failures, lambda: False)

    def _pause(self, failures: int, has_other_work: Callable[[], bool]) -> None:
        """Pause after a number of failures in a row. Once the training waits, this is short."""
        pause = backoff(failures, _FIRST_PAUSE, _LONGEST_PAUSE)

        def ends() -> bool:
            return self._is_abandoned or has_other_work()

        self._condition.wait_for(lambda: self._is_awaited or ends(), pause)
        if self._is_awaited:
            self._condition.wait_for(ends, min(pause, _PAUSE_AT_END))

    def _tell_what_is_left(self) -> None:
        error = self._failure if self._failures else next(iter(self._failed_files.values()), "")
        self._warnings.gives_up([*reversed(self._pending), *self._failed_files], error)


class _Abandoned(Exception):
    """The training no longer waits for this thread."""
