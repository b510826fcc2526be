"""`CheckpointSync`: brings checkpoints to Flyte beside the training, which does not wait for it."""

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

from callback_core.tracking import linked_copy
from callback_flyte.store import Store, download

logger = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 30.0
"""Seconds between two attempts at a Flyte that keeps failing, at most."""

_NUMBERS: Final = count(1)
"""Of hard links, which two trainings of a process may have in one directory."""


class CheckpointSync:
    """Keeps the newest checkpoint of a training in Flyte, and the best, in a thread of its own.

    The thread is there while there is something to bring. What a newer checkpoint has replaced
    before it was brought is not brought at all, so that a slow Flyte does not fall behind. Until it
    is brought it is kept as hard links, since the trainer may delete it.

    Args:
        checkpoint: Flyte's checkpoint of the task.
        context: The context of the task, by which flytekit knows it in the thread too.
        folder: Where the hard links are; a directory of its own.
        limit: Seconds that the end of training waits, and after which a slow upload is spoken of.
    """

    def __init__(self, checkpoint: Any, context: Context, folder: Path, limit: float) -> None:
        self._checkpoint, self._context = checkpoint, context
        self._folder, self._limit = folder, limit
        self._store = Store(checkpoint)
        self._lock = Lock()  # of all that follows
        self._thread: Thread | None = None
        self._to_carry_over: list[str] = []
        self._wanted: list[Path] = []  # as hard links, the newest last
        self._brought: set[Path] = set()
        self._newest: Path | None = None  # that a retry would find
        self._wake = Event()
        self._ending = self._given_up = self._said_failure = self._said_slow = False
        self._failure: str | None = None
        self._busy_since: float | None = None
        self._links: set[Path] = set()
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed

    def keep(self, newest: Path, best: Path | None = None) -> None:
        """Have these two in Flyte, and no others.

        Args:
            newest: The checkpoint that was just saved.
            best: The best so far, where there is one.
        """
        self._say_if_slow()
        try:
            with self._lock:
                kept = {path.name: path for path in self._wanted}
                links = [self._linked(newest)]
                if best is not None and best.name != newest.name:
                    links[:0] = [kept.get(best.name) or self._linked(best)]
                self._to_carry_over, self._wanted = [], links
        except OSError as error:
            logger.warning("%s cannot be kept for Flyte.", newest.name, exc_info=error)
        else:
            self._begin()

    def carry_over(self, newest: str, best: str | None = None) -> None:
        """Have those two checkpoints of the attempt before in this one's place, by their names.

        A further attempt is told of this one's place only: where this one ends before its first
        checkpoint, all that was trained before would be lost.
        """
        with self._lock:
            self._to_carry_over = [newest] if best is None or best == newest else [best, newest]
        self._begin()

    def finish(self) -> None:
        """Wait until all is brought, to the limit, and say what is not."""
        atexit.unregister(self.finish)
        self._ending = True
        self._wake.set()
        thread, deadline = self._thread, monotonic() + self._limit
        while thread is not None and thread.is_alive() and monotonic() < deadline:
            thread.join(min(0.5, max(0.0, deadline - monotonic())))
        trouble = self._trouble()
        self.give_up()
        if trouble:
            logger.warning("Training was not affected, but %s.", trouble)

    def give_up(self) -> None:
        """Begin no further upload. One that is under way goes on while the process is there."""
        self._given_up = True
        self._wake.set()

    def _trouble(self) -> str | None:
        """Return what a retry of the task would not find, in a line."""
        pending = self._pending()
        if pending is None:
            return None
        why = self._failure or "nothing was left of the time for it"
        if self._failure is None and self._busy_since is not None:
            why = f"an upload has not come back for {monotonic() - self._busy_since:.0f} s"
        found = f"goes on from {self._newest.name}" if self._newest else "does not find it"
        return f"Flyte has not got {pending} ({why}): a retry of this task {found}"

    def _begin(self) -> None:
        """Have the thread bring what there is."""
        self._ending = self._given_up = False
        with self._lock:
            if self._thread is None:
                # flytekit keeps a thread for each name of one that uploads: let it be one name.
                self._thread = Thread(
                    target=self._context.copy().run,
                    args=(self._run,),
                    name="FlyteCallback",
                    daemon=True,
                )
                self._thread.start()
                atexit.register(self.finish)  # where the loop raises and does not say so
        self._wake.set()

    def _run(self) -> None:
        failures = 0
        while not self._is_done():
            self._wake.clear()
            try:
                self._bring()
            except Exception as error:
                failures += 1
                self._say_failure(error)
                pause = min(LONGEST_PAUSE, 0.5 * 2.0 ** min(failures, 16))
                self._wake.wait(min(1.0, pause) if self._ending else pause)
            else:
                failures, self._failure = 0, None
            finally:
                self._busy_since = None
                with self._lock:
                    self._remove_links()

    def _is_done(self) -> bool:
        """Return whether the thread may end, and let another begin then."""
        with self._lock:
            if self._given_up:
                self._to_carry_over, self._wanted = [], []
                self._remove_links()
            if self._pending():
                return False
            self._thread = None
            return True

    def _pending(self) -> str | None:
        """Return the name of the checkpoint that is to be in Flyte, and is not."""
        if self._to_carry_over:
            return self._to_carry_over[-1]
        newest = self._wanted[-1] if self._wanted else self._newest
        return newest.name if newest is not None and newest != self._newest else None

    def _bring(self) -> None:
        """Bring what is wanted now, unless it is replaced meanwhile."""
        self._busy_since = monotonic()
        if self._to_carry_over:
            self._link_what_to_carry_over()
        wanted = self._wanted
        for path in wanted:
            if path not in self._brought:
                self._store.put(path)
                self._brought.add(path)
            if self._wanted is not wanted:
                return
        if wanted:
            self._store.note(wanted[-1])
            self._newest = wanted[-1]
            self._store.keep_only([path.name for path in wanted])

    def _link_what_to_carry_over(self) -> None:
        names = self._to_carry_over
        root = download(self._checkpoint)
        found = [] if root is None else [root / name for name in names if (root / name).is_dir()]
        links = [self._linked(path) for path in found if names[-1] == found[-1].name]
        with self._lock:
            if self._to_carry_over is names:
                self._to_carry_over, self._wanted = [], links

    def _linked(self, directory: Path) -> Path:
        """Return hard links to a checkpoint, with no other beside it."""
        links = self._folder / str(next(_NUMBERS)) / directory.name
        self._links.add(links)
        linked_copy(directory, links)
        return links

    def _remove_links(self) -> None:
        """Delete the links to what is brought, or replaced."""
        self._brought &= set(self._wanted)
        needed = set(self._wanted) if self._pending() else set()
        for links in self._links - needed:
            shutil.rmtree(links.parent, ignore_errors=True)
        self._links &= needed
        with suppress(OSError):
            self._folder.rmdir()  # if there is nothing in it

    def _say_failure(self, error: Exception) -> None:
        self._failure = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if not self._said_failure:
            self._said_failure = True
            logger.warning(
                "Flyte does not take a checkpoint. Training goes on; it is tried again.",
                exc_info=error,
            )

    def _say_if_slow(self) -> None:
        since = self._busy_since
        if since is not None and monotonic() - since > self._limit and not self._said_slow:
            self._said_slow = True
            logger.warning(
                "An upload to Flyte has not come back for %.0f s. Training goes on.",
                monotonic() - since,
            )
