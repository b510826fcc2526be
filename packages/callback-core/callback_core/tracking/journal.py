"""`Journal`: the append-only file of a run, from which all of its trackers are served.

A record is a line of JSON with its `kind`, the update `step` and the `time` in seconds since 1970:

- `begin`: a training begins at `step`, with its arguments; `resumed` from a checkpoint or not.
- `logs`: values that were logged; `summary` if a training logs each of them only once.
- `saved`: a checkpoint was written.
- `upload`: a directory to upload, `for` one tracker.
- `end`: the training ended, with a `status`.

A last line without a line break is incomplete and does not count.
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
"""The most records that wait in memory while the disk takes none."""

DAMAGED: Final = "damaged"
"""The kind of a line that is not a record."""

_LAST_BLOCK: Final = 65536
"""Bytes that are read at a time from the end of a journal."""

_KEYS: Final = {
    "begin": ("resumed", "arguments", "model_config"),
    "logs": ("time", "logs"),
    "upload": ("for", "path", "name"),
    "end": ("status",),
}
"""The keys that a record of each kind must have, beside its step."""

_SAVED: Final = b'{"kind":"saved",'
"""The beginning of the record of a checkpoint."""

# Made once, and without a check for circles, which takes half of the time.
_line: Final = json.JSONEncoder(separators=(",", ":"), default=str, check_circular=False).encode


class Journal:
    """Appends records to a journal. It first removes an incomplete last record.

    Args:
        path: The file. It is created if it does not exist.

    Attributes:
        lost: How many records the disk did not take.

    Raises:
        Held: Somebody else appends to the file.
        OSError: The file cannot be written.
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
        """Add `record`. If the disk does not take it, it waits in memory, and a warning says so."""
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
        """Flush the file to the disk in the background, so that it survives a loss of power."""
        file = os.dup(self._file)
        Thread(target=_synced, args=(file,), name="sync the journal", daemon=True).start()

    def close(self) -> None:
        """Close the file, and warn of the records that the disk did not take."""
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
        """Write `line` as a whole or not at all, and return whether it is written."""
        try:
            os.lseek(self._file, self._size, os.SEEK_SET)
            written = os.write(self._file, line)
            while written < len(line):  # the disk took a part: the next call says why
                written += os.write(self._file, line[written:])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            if not self._waiting:
                logger.warning(
                    "The journal %s cannot be written: %s. Training continues. The earlier records "
                    "are safe; the next ones wait in memory.",
                    self.path,
                    error,
                )
            return False
        self._size += len(line)
        return True


class Record(NamedTuple):
    """A record of a journal, which takes the bytes from `start` to `end` of the file."""

    start: int
    end: int
    content: dict[str, Any]

    @property
    def kind(self) -> str:
        """The kind: `begin`, `logs`, `saved`, `upload`, `end` or `DAMAGED`."""
        return str(self.content.get("kind"))

    @property
    def step(self) -> int:
        """The update step."""
        return int(self.content.get("step", 0))


def read(path: Path, offset: int = 0) -> Iterator[Record]:
    """Yield the complete records of the journal at `path` from `offset` on.

    A line that is not a record becomes one of the kind `DAMAGED`.
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
    """Flush `file` to the disk, and close it."""
    with suppress(OSError):  # some file systems cannot
        os.fsync(file)
    os.close(file)


def whole_size(path: Path) -> int:
    """Return the size of the journal at `path` without an incomplete last record."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - _LAST_BLOCK)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0


def has_ended(path: Path) -> bool:
    """Return whether the last record of the journal at `path` says that the training ended."""
    return _last_of(path).get("kind") == "end"


def saved_at(path: Path, step: int) -> bool:
    """Return whether the training that wrote the journal at `path` saved a checkpoint at `step`.

    If it noted no checkpoints at all, return whether it got that far.
    """
    has_saved = False
    with path.open("rb") as file:
        for line in file:
            if line.startswith(_SAVED):
                has_saved = True
                if _content(line).get("step") == step:
                    return True
    return not has_saved and int(_last_of(path).get("step", -1)) >= step


def _last_of(path: Path) -> dict[str, Any]:
    """Return the last record, unless it is a long one."""
    size = whole_size(path)
    with path.open("rb") as file:
        begin = max(0, size - _LAST_BLOCK)
        file.seek(begin)
        last = file.read(size - begin).rstrip(b"\n").rpartition(b"\n")[2]
    return _content(last)
