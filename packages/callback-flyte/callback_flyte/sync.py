"""`CheckpointSync`: uploads checkpoints to Flyte in the background."""

from __future__ import annotations

import atexit
import logging
import shutil
from contextlib import suppress
from contextvars import Context
from itertools import count
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any, Final

from callback_core.tracking import backoff, linked_copy
from callback_flyte.store import Store, download

logger = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 30.0
"""The longest pause between two upload attempts, in seconds."""

_NUMBERS: Final = count(1)
"""Numbers the directories of hard links. Two trainings of a process may share the parent."""


class CheckpointSync:
    """Keeps the newest and the best checkpoint of a training in Flyte, from its own thread.

    The thread exists while there is something to upload. If a newer checkpoint replaces one that
    waits, the older one is skipped, so that slow uploads do not fall behind. The trainer may delete
    a checkpoint that waits, so hard links keep its files.

    Args:
        checkpoint: Flyte's checkpoint of the task.
        context: The context of the task. flytekit needs it to find the task in the thread.
        folder: The directory of the hard links; it must not contain anything else.
        limit: Seconds that the end of training waits, and after which a slow upload is reported.
    """

    def __init__(self, checkpoint: Any, context: Context, folder: Path, limit: float) -> None:
        self._checkpoint, self._context = checkpoint, context
        self._folder, self._limit = folder, limit
        self._store = Store(checkpoint)
        self._lock = Lock()  # guards the attributes below
        self._thread: Thread | None = None
        self._to_carry_over: list[str] = []
        self._targets: list[Path] = []  # as hard links, the newest last
        self._uploaded: set[Path] = set()
        self._newest: Path | None = None  # what a retry would find
        self._wake = Event()
        self._ending = self._abandoned = self._failure_reported = self._slow_reported = False
        self._failure: str | None = None
        self._busy_since: float | None = None
        self._links: set[Path] = set()
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed attempt

    def keep(self, newest: Path, best: Path | None = None) -> None:
        """Make Flyte hold these two checkpoints, and no others.

        Args:
            newest: The checkpoint that was just saved.
            best: The best checkpoint so far, if it is known.
        """
        self._warn_if_slow()
        try:
            with self._lock:
                kept = {path.name: path for path in self._targets}
                links = [self._hard_link(newest)]
                if best is not None and best.name != newest.name:
                    links[:0] = [kept.get(best.name) or self._hard_link(best)]
                self._to_carry_over, self._targets = [], links
        except OSError as error:
            logger.warning(
                "Could not keep %s for the upload to Flyte.", newest.name, exc_info=error
            )
        else:
            self._start()

    def carry_over(self, newest: str, best: str | None = None) -> None:
        """Copy checkpoints of the previous attempt to this attempt's location.

        The next attempt knows this attempt's location only. If this attempt died before its first
        checkpoint, all earlier progress would be lost.

        Args:
            newest: The name of the newest checkpoint.
            best: The name of the best checkpoint, if it is known.
        """
        with self._lock:
            self._to_carry_over = [newest] if best is None or best == newest else [best, newest]
        self._start()

    def finish(self) -> None:
        """Wait for all uploads, up to the limit, and report what is missing."""
        atexit.unregister(self.finish)
        self._ending = True
        self._wake.set()
        thread, deadline = self._thread, monotonic() + self._limit
        while thread is not None and thread.is_alive() and monotonic() < deadline:
            thread.join(min(0.5, max(0.0, deadline - monotonic())))
        shortfall = self._shortfall()
        self.abandon()
        if shortfall:
            logger.warning("Training was not affected, but %s.", shortfall)

    def abandon(self) -> None:
        """Start no further upload. The current one continues while the process lives."""
        self._abandoned = True
        self._wake.set()

    def _shortfall(self) -> str | None:
        """Return in one line what a retry of the task would not find; `None` if it finds all."""
        pending = self._pending()
        if pending is None:
            return None
        why = self._failure or "there was no time to upload it"
        if self._failure is None and self._busy_since is not None:
            why = f"the upload has been running for {monotonic() - self._busy_since:.0f} s"
        found = f"resumes from {self._newest.name}" if self._newest else "starts over"
        return f"{pending} is not in Flyte ({why}): a retry of this task {found}"

    def _start(self) -> None:
        """Start the thread, or wake it."""
        self._ending = self._abandoned = False
        with self._lock:
            if self._thread is None:
                # flytekit keeps one of its threads for each name of an uploading thread.
                self._thread = Thread(
                    target=self._context.copy().run,
                    args=(self._run,),
                    name="FlyteCallback",
                    daemon=True,
                )
                self._thread.start()
                atexit.register(self.finish)  # in case the loop raises without an event
        self._wake.set()

    def _run(self) -> None:
        failures = 0
        while not self._is_done():
            self._wake.clear()
            try:
                self._upload()
            except Exception as error:
                failures += 1
                self._report_failure(error)
                pause = backoff(failures, 1.0, LONGEST_PAUSE)
                self._wake.wait(min(1.0, pause) if self._ending else pause)
            else:
                failures, self._failure = 0, None
            finally:
                self._busy_since = None
                with self._lock:
                    self._remove_links()

    def _is_done(self) -> bool:
        """Return whether the thread may end; if so, a new one may start."""
        with self._lock:
            if self._abandoned:
                self._to_carry_over, self._targets = [], []
                self._remove_links()
            if self._pending():
                return False
            self._thread = None
            return True

    def _pending(self) -> str | None:
        """Return the name of the newest checkpoint that Flyte does not have yet."""
        if self._to_carry_over:
            return self._to_carry_over[-1]
        newest = self._targets[-1] if self._targets else self._newest
        return newest.name if newest is not None and newest != self._newest else None

    def _upload(self) -> None:
        """Upload the current targets, until newer ones replace them."""
        self._busy_since = monotonic()
        if self._to_carry_over:
            self._link_previous()
        targets = self._targets
        for path in targets:
            if path not in self._uploaded:
                self._store.put(path)
                self._uploaded.add(path)
            if self._targets is not targets:
                return
        if targets:
            self._store.note(targets[-1])
            self._newest = targets[-1]
            self._store.keep_only([path.name for path in targets])

    def _link_previous(self) -> None:
        names = self._to_carry_over
        root = download(self._checkpoint)
        found = [] if root is None else [root / name for name in names if (root / name).is_dir()]
        links = [self._hard_link(path) for path in found if names[-1] == found[-1].name]
        with self._lock:
            if self._to_carry_over is names:
                self._to_carry_over, self._targets = [], links

    def _hard_link(self, directory: Path) -> Path:
        """Hard-link a checkpoint into a new directory, and return the path of the copy."""
        links = self._folder / str(next(_NUMBERS)) / directory.name
        self._links.add(links)
        linked_copy(directory, links)
        return links

    def _remove_links(self) -> None:
        """Delete the links to checkpoints that are uploaded or replaced."""
        self._uploaded &= set(self._targets)
        needed = set(self._targets) if self._pending() else set()
        for links in self._links - needed:
            shutil.rmtree(links.parent, ignore_errors=True)
        self._links &= needed
        with suppress(OSError):
            self._folder.rmdir()  # only if it is empty

    def _report_failure(self, error: Exception) -> None:
        self._failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if not self._failure_reported:
            self._failure_reported = True
            logger.warning(
                "An upload to Flyte failed. Training continues; the upload is retried.",
                exc_info=error,
            )

    def _warn_if_slow(self) -> None:
        since = self._busy_since
        if since is not None and monotonic() - since > self._limit and not self._slow_reported:
            self._slow_reported = True
            logger.warning(
                "An upload to Flyte has been running for %.0f s. Training continues.",
                monotonic() - since,
            )
