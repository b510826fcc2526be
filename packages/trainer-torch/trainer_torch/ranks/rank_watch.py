"""`RankWatch`: watches a rank, and explains errors of collective operations."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from trainer_torch.ranks.hang_error import HangError
from trainer_torch.ranks.rank_notes import Progress
from trainer_torch.ranks.watchdog import Watchdog

logger = logging.getLogger(__name__)

_PAUSE: Final = 0.5  # seconds


class RankWatch:
    """Connects the collective operations of a rank with its `Watchdog`.

    Args:
        group: The process group.
        rank: The number of this rank.
        size: The number of ranks.
        limit: The seconds that a rank may wait for others.
    """

    def __init__(self, group: Any, rank: int, size: int, limit: float) -> None:
        self._rank, self._size, self._limit = rank, size, limit
        self._store: Any = None
        if hasattr(group, "get_group_store"):
            # A clone has a connection of its own: the process group never waits for the watchdog.
            self._store = group.get_group_store().clone()
        elif rank == 0:
            logger.warning(
                "If a rank hangs, the others end after ddp_timeout, but cannot say which one: this "
                "version of torch does not give access to the store of a process group. To see "
                "the late rank, install a newer torch."
            )
        self.progress = Progress()
        self._watchdog: Watchdog | None = None
        self._watched: threading.Thread | None = None
        self._calls = 0

    @property
    def has_store(self) -> bool:
        """Whether this version of torch gives access to the store of the process group."""
        return self._store is not None

    def all_arrive(self, seconds: float) -> bool:
        """Return whether every rank calls this within `seconds` of this rank.

        It works once in each watched call of the Trainer.

        All ranks return the same, because the first one that knows it writes it to the store.
        """
        met, until = f"met/{self._calls}", time.monotonic() + seconds
        try:
            if self._store.add(f"arrived/{self._calls}", 1) == self._size:
                self._store.compare_set(met, "", "yes")
            while not self._store.check([met]) and time.monotonic() < until:
                time.sleep(_PAUSE)
            return bool(self._store.compare_set(met, "", "no") == b"yes")
        except RuntimeError:  # the store is lost
            return False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this rank by a `Watchdog`, unless it is watched already."""
        if self._watchdog is not None or self._store is None:
            yield
            return
        self._calls += 1
        self._watched = threading.current_thread()
        self._watchdog = Watchdog(
            self._store, self._rank, self._size, self._limit, self.progress, self._calls
        )
        try:
            with self._watchdog:
                yield
        finally:
            self._watchdog = None

    @contextmanager
    def collective_operation(self) -> Iterator[None]:
        """Note the start and the end of a collective operation, and explain an error in it.

        In a thread that saves beside the training, it does nothing.

        Raises:
            HangError: The operation failed. The message says which ranks are late, lost or failed.
        """
        if not self._is_in_training:
            yield
            return
        self.progress.turn()
        try:
            yield
        except RuntimeError as error:
            explained = self._explain() or (
                "Either one of them has ended, and its own error says why; or one took longer than "
                "ddp_timeout. Look for the first error in the output of all ranks."
            )
            raise HangError(
                f"Training ends in rank {self._rank}, because it lost the other ranks. {explained}"
            ) from error
        self.progress.turn()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Note that this rank waits for the others in this context, whatever ends it.

        Within another such context, note that it works on its own meanwhile.
        """
        is_noted = self._is_in_training
        if is_noted:
            self.progress.turn()
        try:
            yield
        finally:
            if is_noted:
                self.progress.turn()

    @property
    def _is_in_training(self) -> bool:
        """Whether this is not a thread beside the one that is watched."""
        return self._watchdog is None or self._watched is threading.current_thread()

    def report_failure(self, error: BaseException) -> None:
        """Tell the other ranks about an error of this rank, and log which ranks failed or are lost.

        An error of the process group in a backward pass does not say which rank caused it.
        """
        if isinstance(error, HangError) and self._watchdog is not None:
            self._watchdog.stand_back()
        elif isinstance(error, Exception) and (explained := self._explain(repr(error))):
            logger.error("Training ends in rank %d. %s", self._rank, explained)

    def _explain(self, failure: str | None = None) -> str:
        return "" if self._watchdog is None else self._watchdog.explain(failure)
