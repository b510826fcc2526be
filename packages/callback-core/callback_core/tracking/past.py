"""What of a journal a tracker may have been sent before, and what of it still counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from callback_core.tracking.journal import Record, read, superseded
from callback_core.tracking.naming import is_measured
from callback_core.tracking.values import restored


class Sent(NamedTuple):
    """A value that a training logged before it died, and that a resumed one has replaced.

    Attributes:
        value: The value.
        time: When it was logged.
        certain: Whether the tracker is known to have it; otherwise it may have it or not, as when a
            process was killed while it delivered.
    """

    value: Any
    time: float
    certain: bool


class Past:
    """What was in a journal when somebody began to deliver it.

    Args:
        journal: The journal.
        offset: How far it is known to have been delivered.
        rewinds: Whether the tracker can forget points from a step on.
        opened: Whether a run has been opened in the tracker before.
        passed_over: The parts of the journal before `offset` that were left out then.
        closed: Whether the run was closed then, so that nothing was sent beyond `offset`.

    Attributes:
        start: Where to go on reading.
        rewind_to: The step from which on the tracker is to forget its points.
        size: How far the journal went.
    """

    def __init__(
        self,
        journal: Path,
        offset: int,
        rewinds: bool,
        opened: bool,
        passed_over: Sequence[Sequence[int]] = (),
        closed: bool = False,
    ) -> None:
        self.start, self.size = offset, offset
        self.rewind_to: int | None = None
        self._delivered = offset
        for record in read(journal, offset):  # first: what is appended from now on is to come
            self.size = record.end
        self._gone = superseded(journal)
        self._sent: dict[tuple[str, int], list[Sent]] = {}
        if not opened:
            return
        doubtful: list[int] = []  # steps of what the tracker may have, and must not have twice
        for record in read(journal):
            if record.kind != "logs":
                continue
            gone = self._stretch_of(record)
            if gone is not None and not rewinds:
                certain = record.start < offset and not any(
                    begin <= record.start < end for begin, end in passed_over
                )
                for name, value in record.content["logs"].items():
                    sent = Sent(restored(value), record.content["time"], certain)
                    self._sent.setdefault((name, record.step), []).append(sent)
            # What was replaced before the tracker was served last, it has forgotten then.
            if (record.start >= offset and not closed) or (gone is not None and gone[1] >= offset):
                doubtful.append(record.step)
        if rewinds and doubtful:
            self.rewind_to = min(doubtful)
            for record in read(journal):
                if record.kind == "logs" and record.step >= self.rewind_to and self.counts(record):
                    self.start = min(offset, record.start)
                    break

    def counts(self, record: Record) -> bool:
        """Return whether `record` is part of the run's history, and still to be delivered."""
        if self._stretch_of(record) is not None:
            return False
        if record.start >= self._delivered:
            return True
        return record.kind == "logs" and record.step >= (self.rewind_to or 0)

    def news(self, name: str, value: Any, step: int, time: float) -> tuple[Any, float] | None:
        """Return value and time to deliver of a point; `None` where the tracker has it already.

        A value that comes out as before, or that only measures time, is the one that was logged
        first: with its time, so that a tracker that can tell duplicates does.
        """
        if (name, step) not in self._sent:
            return value, time
        before = [
            sent
            for sent in self._sent[name, step]
            if is_measured(name) or sent.value == value or (_is_nan(sent.value) and _is_nan(value))
        ]
        if any(sent.certain for sent in before):
            return None
        return before[0][:2] if before else (value, time)

    def _stretch_of(self, record: Record) -> tuple[int, int] | None:
        return next((s for s in self._gone if s[0] <= record.start < s[1]), None)


def _is_nan(value: Any) -> bool:
    return bool(value != value)


def last_records(journal: Path) -> tuple[Record | None, Record | None]:
    """Return the last record of `journal` by which a training begins, and the last of all."""
    begin = last = None
    for last in read(journal):
        if last.kind == "begin":
            begin = last
    return begin, last
