"""The journal of a run: an append-only file from which all trackers are served.

A record is a line of JSON with its `kind`, the update `step` and the `time` in seconds since 1970:

- `begin`: a training begins, or goes on at `step`; with its arguments. `resumed` where it goes on.
- `logs`: values that were logged.
- `saved`: a checkpoint was written.
- `upload`: a directory to keep, `for` one tracker.
- `end`: the training ended, with a `status`.

A last line without a line break was not written to its end, and does not count.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Final, NamedTuple

from callback_core.tracking.lock import FileLock

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 100_000
"""Records that are kept in memory while the disk takes none."""

DAMAGED: Final = "damaged"
"""The kind of a line that is no record."""

_KEYS: Final = {
    "begin": ("resumed", "arguments", "model_config"),
    "logs": ("time", "logs"),
    "upload": ("for", "path", "name"),
    "end": ("status",),
}
"""What a record of a kind has at least, beside its step."""


# Made once, and without looking for circles, which the records have none of: half of the time.
_line: Final = json.JSONEncoder(separators=(",", ":"), default=str, check_circular=False).encode


class Journal:
    """Appends records to a journal. A record that is cut off at the file's end is taken away.

    Args:
        path: The file. It is made where it is not there.

    Raises:
        Held: Another process appends to it.
        OSError: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = 0
        self._waiting: deque[bytes] = deque()
        self._lock = FileLock(path.with_suffix(".lock"))
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            self._size = whole_size(path)
            os.ftruncate(self._file, self._size)
        except BaseException:
            self._lock.release()
            raise

    def append(self, record: dict[str, Any]) -> None:
        """Add `record`.

        Where the disk does not take it, it waits in memory for the next one, and this is said once.
        """
        line = _line(record).encode() + b"\n"
        if not self._waiting and self._write(line):
            return
        self._waiting.append(line)
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popleft()
            self.lost += 1
        while self._waiting and self._write(self._waiting[0]):
            self._waiting.popleft()

    def sync(self) -> None:
        """Have the disk keep what is written, also through a loss of power; do not wait for it."""
        file = os.dup(self._file)
        Thread(target=_synced, args=(file,), name="sync the journal", daemon=True).start()

    def close(self) -> None:
        """Close the file; records that the disk did not take are lost, which is said."""
        self.lost += len(self._waiting)
        if self.lost:
            logger.warning(
                "%d records could not be written to %s and are lost to the trackers.",
                self.lost,
                self.path,
            )
        with suppress(OSError):
            os.close(self._file)
        self._lock.release()

    def _write(self, line: bytes) -> bool:
        """Write `line` as a whole or not at all, and return whether it is there."""
        try:
            os.lseek(self._file, self._size, os.SEEK_SET)
            written = os.write(self._file, line)
            while written < len(line):  # what the disk still took: the next call says why
                written += os.write(self._file, line[written:])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            if not self._waiting:
                logger.warning(
                    "The journal %s cannot be written: %s. Training goes on. All before this is "
                    "there; what follows waits in memory.",
                    self.path,
                    error,
                )
            return False
        self._size += len(line)
        return True


class Record(NamedTuple):
    """A record of a journal, and the bytes of the file that it takes, from `start` to `end`."""

    start: int
    end: int
    content: dict[str, Any]

    @property
    def kind(self) -> str:
        """What it is."""
        return str(self.content.get("kind"))

    @property
    def step(self) -> int:
        """The update step that it belongs to."""
        return int(self.content.get("step", 0))


def read(path: Path, offset: int = 0) -> Iterator[Record]:
    """Return the whole records of the journal at `path` from `offset` on, as far as it goes now.

    A line that is no record is one of the kind `DAMAGED`.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            start, offset = offset, offset + len(line)
            yield Record(start, offset, _content(line))


def _content(line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
        if isinstance(content["step"], int) and content.keys() >= {*_KEYS.get(content["kind"], ())}:
            return dict(content)
    except (ValueError, TypeError, KeyError):
        pass
    return {"kind": DAMAGED}


def _synced(file: int) -> None:
    """Have the disk keep what was written to `file`, and close it."""
    with suppress(OSError):  # a file system that cannot
        os.fsync(file)
    os.close(file)


def whole_size(path: Path) -> int:
    """Return the size of the journal at `path` without a last record that is cut off."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - 65536)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0


def superseded(path: Path) -> list[tuple[int, int]]:
    """Return the stretches of the journal at `path` that a resumed training has replaced.

    A training that goes on from the checkpoint of a step repeats all that followed it. That is what
    comes after the last `saved` record of the step and the uploads of what was saved, or else after
    the last record up to that step.
    """
    stretches: list[tuple[int, int]] = []
    ends: list[tuple[int, int, bool]] = []  # of the records that count: end, step, if saved there
    for record in read(path):
        if record.kind == DAMAGED:
            continue
        if record.kind == "begin" and record.content["resumed"]:
            saves = [end for end, step, saved in ends if saved and step == record.step]
            cut = (
                saves[-1] if saves else max((e for e, s, _ in ends if s <= record.step), default=0)
            )
            if cut < record.start:
                stretches.append((cut, record.start))
            ends = [entry for entry in ends if entry[0] <= cut]
        # Where it was resumed before, there is a checkpoint, even if its `saved` was cut off.
        known = record.kind == "saved" or (record.kind == "begin" and record.content["resumed"])
        if record.kind == "upload" and ends:  # of a checkpoint, if it is right behind its `saved`
            known = ends[-1][2] and ends[-1][1] == record.step
        ends.append((record.end, record.step, known))
    return stretches
