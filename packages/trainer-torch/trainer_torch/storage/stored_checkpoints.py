"""`StoredCheckpoints`: the checkpoints in a store, and which of them are over a limit."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

from trainer_torch.storage.checkpoint import STATE, best_named_in, read_json, surplus
from trainer_torch.storage.remote import RemoteCheckpoint, RemoteDirectory


class StoredCheckpoints:
    """The checkpoints in a store to which no other process uploads.

    They are ordered by the times at which they were written. But those that this process has
    uploaded are newer than all others, and ordered by numbers that the caller gives them, so that a
    clock that was wrong does not matter.

    Args:
        remote: The directory in the store.
        output_dir: The local directory of the same checkpoints.
        limit: The number of checkpoints to keep in the store; `None` for all.
    """

    def __init__(self, remote: RemoteDirectory, output_dir: Path, limit: int | None) -> None:
        self._remote, self._output_dir, self._limit = remote, output_dir, limit
        self._lock = threading.Lock()
        self._found: dict[str, RemoteCheckpoint] | None = None  # by name
        self._numbers: dict[str, int] = {}  # of those that this process has uploaded

    def find(self) -> None:
        """List what is in the store, unless that is known."""
        if self._found is None:
            self._found = {one.name: one for one in self._remote.list_checkpoints()}

    def complete(self) -> list[RemoteCheckpoint]:
        """Return the checkpoints that are complete in the store, the oldest first."""
        with self._lock:
            found = list((self._found or {}).values())
        return sorted((one for one in found if one.find_fault() is None), key=self._age)

    def covers(self, name: str, written: float, number: int) -> bool:
        """Return whether a checkpoint, or a newer one, is complete in the store.

        Args:
            name: Its name.
            written: The time at which it was written.
            number: Its number; 0 if this process has not saved it.
        """
        return any(
            (one.name, one.written) == (name, written) or self._age(one) > (number, written)
            for one in self.complete()
        )

    def begin(self, name: str) -> None:
        """Note that files of the checkpoint `name` will be in the store, but not its manifest.

        If the store has an older one of that name, it is removed.
        """
        self.remove(name)
        self._set(RemoteCheckpoint(self._remote, name, b"", {}))

    def add(self, checkpoint: RemoteCheckpoint, number: int) -> None:
        """Note that a checkpoint with this number is complete in the store."""
        self._set(checkpoint, number)

    def remove(self, name: str) -> None:
        """Remove the checkpoint `name` from the store, if any of its files is there."""
        assert self._found is not None
        if name in self._found:
            self._set(RemoteCheckpoint(self._remote, name, b"", {}))  # until all of it is removed
            self._remote.remove_checkpoint(name)
            with self._lock:
                del self._found[name]

    def is_surplus(self, local: RemoteCheckpoint, number: int, pending: Collection[str]) -> bool:
        """Return whether the limit would remove a checkpoint as soon as it is uploaded.

        Args:
            local: The checkpoint.
            number: Its number.
            pending: The names of the checkpoints that are not yet uploaded.
        """
        older = [one for one in self.complete() if one.name != local.name]
        newer = [one for one in older if self._age(one) > (number, local.written)]
        older = older[: len(older) - len(newer)]
        return bool(newer) and local.name in self._surplus([*older, local, *newer], pending)

    def remove_surplus(
        self, pending: Collection[str], check: Callable[[], None]
    ) -> Exception | None:
        """Remove the checkpoints over the limit, and those that are partial.

        Partial ones are of processes that were killed, or of uploads or removals that failed.

        Args:
            pending: The names of the checkpoints that are not yet uploaded.
            check: A function that is called before each removal. It may raise an error to end this.

        Returns:
            The last error of the store, if not all could be removed.
        """
        last: Exception | None = None
        try:
            surplus = self._to_remove(pending)
        except Exception as error:  # each store has errors of its own
            return error
        for name in surplus:
            check()
            try:
                self.remove(name)
            except Exception as error:
                last = error
        return last

    def best_of(self, name: str) -> str | None:
        """Return the name of the best checkpoint according to the local checkpoint `name`."""
        with suppress(OSError, ValueError):  # it may have been deleted
            return best_named_in(read_json(self._output_dir / name / STATE))
        return None

    def _to_remove(self, pending: Collection[str]) -> list[str]:
        if self._limit is None:
            return []
        complete = self.complete()
        partial = [
            name
            for name, one in (self._found or {}).items()
            if one.find_fault() and not one.failure and name not in pending
        ]
        return [*partial, *self._surplus(complete, pending)]

    def _surplus(self, complete: Sequence[RemoteCheckpoint], pending: Collection[str]) -> list[str]:
        """Return which of the checkpoints, the oldest first, are over the limit.

        The newest one is never among them, nor is the best one according to it or to one that is
        not yet uploaded.
        """
        if self._limit is None or len(complete) <= self._limit:
            return []
        newest = complete[-1].name
        kept = {self.best_of(name) for name in (newest, *pending)}
        if not (self._output_dir / newest).exists():
            kept.add(best_named_in(json.loads(self._remote.read(f"{newest}/{STATE}"))))
        return surplus([(one.name, one.is_finite) for one in complete], self._limit, kept)

    def _set(self, checkpoint: RemoteCheckpoint, number: int = 0) -> None:
        assert self._found is not None
        with self._lock:
            self._found[checkpoint.name] = checkpoint
            self._numbers[checkpoint.name] = number

    def _age(self, checkpoint: RemoteCheckpoint) -> tuple[int, float]:
        return self._numbers.get(checkpoint.name, 0), checkpoint.written
