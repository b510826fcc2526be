"""Event files for TensorBoard, to which a batch of events is added completely or not at all."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BytesIO, FileIO
from itertools import count, groupby
from pathlib import Path
from socket import gethostname
from typing import Final

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from callback_core.tracking import Point

_STAMP: Final = re.compile(r"\.tfevents\.(\d+)\.")


class EventFile:
    """A new event file, created with its first events.

    TensorBoard's own writer uses a thread that ends at the first error. After that it writes
    nothing more, and its file may end in the middle of a record. This class instead truncates the
    file after an error, so that the same events can be added again later.

    Args:
        directory: The directory of the file. TensorBoard shows each directory as a run.
        rewind_to: TensorBoard forgets the points of the run's earlier files from this step on.
        suffix: The end of the file's name.
    """

    def __init__(self, directory: Path, rewind_to: int | None = None, suffix: str = "") -> None:
        self._directory, self._suffix = directory, suffix
        self._first = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if rewind_to is not None:
            start = SessionLog(status=SessionLog.START)
            again = Event(wall_time=time.time(), step=rewind_to, session_log=start)
            self._first += [again, again]  # TensorBoard ignores the first restart of a run
        self._file: FileIO | None = None
        self._size = 0

    def add(self, events: Iterable[Event]) -> None:
        """Add `events`.

        Raises:
            OSError: Writing failed. The file contains none of the events.
        """
        framed = BytesIO()
        records = RecordWriter(framed)
        for event in (*self._first, *events):
            records.write(event.SerializeToString())
        data = framed.getvalue()
        if self._file is None:
            self._file = _new_file(self._directory, self._suffix)
        try:
            written = 0
            while written < len(data):  # after a partial write, the next call raises the error
                written += self._file.write(data[written:])
        except OSError:
            with suppress(OSError):
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise
        self._size += len(data)
        self._first = []

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def scalar_events(points: Iterable[Point]) -> Iterator[Event]:
    """Yield events with `points`, one event for points that were logged together."""
    for (step, when), together in groupby(points, lambda point: (point.step, point.time)):
        values = [Summary.Value(tag=p.name, simple_value=float(p.value)) for p in together]
        yield Event(wall_time=when, step=step, summary=Summary(value=values))


def text_event(name: str, text: str, step: int, when: float) -> Event:
    """Return an event with a text, under the tag that a `SummaryWriter` uses."""
    return Event(wall_time=when, step=step, summary=text_pb(f"{name}/text_summary", text))


def _new_file(directory: Path, suffix: str) -> FileIO:
    """Create a file in `directory` whose name sorts after all existing event files.

    TensorBoard reads the files of a run in the order of their names, which contain their creation
    time in seconds. The order must hold for two files of the same second, and after the clock was
    set back.
    """
    stamps = [int(found[1]) for name in os.listdir(directory) if (found := _STAMP.search(name))]
    for stamp in count(max([int(time.time()) - 1, *stamps]) + 1):
        name = f"events.out.tfevents.{stamp:010d}.{gethostname()}.{os.getpid()}{suffix}"
        with suppress(FileExistsError):
            return FileIO(directory / name, "x")
    raise AssertionError("count never ends")
