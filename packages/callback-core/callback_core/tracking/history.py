"""`History`: which records of a journal count, and which of them a tracker may have already."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any, NamedTuple

from callback_core.tracking.delivery_progress import DeliveryProgress
from callback_core.tracking.journal import DAMAGED, Record, read
from callback_core.tracking.naming import is_measured
from callback_core.tracking.tracker import Status
from callback_core.tracking.values import restored


class Ending:
    """How and when a training ended, according to its journal.

    Attributes:
        status: How it ended; `None` if no record says so.
        time: When it ended, in seconds since 1970; or the time of the last record. What is logged
            after the end does not change it.
    """

    def __init__(self) -> None:
        self.status: Status | None = None
        self.time: float | None = None

    def add(self, record: Record) -> None:
        """Take the next record of the journal into account."""
        if record.kind == "begin":
            self.status = None
        if self.status is None:
            self.time = record.content.get("time", self.time)
        if record.kind == "end":
            self.status = record.content["status"]


class Sent(NamedTuple):
    """A value that a training logged before it died, and that a resumed training replaced.

    Attributes:
        value: The value.
        time: When it was logged, in seconds since 1970.
        certain: Whether the tracker is known to have it. If a process was killed while it delivered
            the value, the tracker may or may not have it.
    """

    value: Any
    time: float
    certain: bool


class Timeline:
    """Finds the stretches of a journal that a resumed training replaced.

    A training that resumes at a step repeats everything that followed the checkpoint of that step:
    the records behind the last `saved` record of the step and behind the uploads of that
    checkpoint. Without such a record, it repeats what follows the last record up to the step.

    Attributes:
        superseded: The stretches, as offsets of their first byte and of the byte after them.
    """

    def __init__(self) -> None:
        self.superseded: list[tuple[int, int]] = []
        self._ends: list[tuple[int, int, bool]] = []  # of records that count: end, step, is saved

    def add(self, record: Record) -> None:
        """Take the next record of the journal into account."""
        if record.kind == DAMAGED:
            return
        resumes = record.kind == "begin" and record.content["resumed"]
        if resumes:
            cut = self._end_of_checkpoint(record.step)
            if cut < record.start:
                self.superseded.append((cut, record.start))
            self._ends = [entry for entry in self._ends if entry[0] <= cut]
        # A training resumes only from a checkpoint, even if its `saved` record was cut off.
        is_saved = record.kind == "saved" or resumes
        if record.kind == "upload" and self._ends:
            _, step, follows_saved = self._ends[-1]
            is_saved = follows_saved and step == record.step
        self._ends.append((record.end, record.step, is_saved))

    def _end_of_checkpoint(self, step: int) -> int:
        saves = [end for end, saved_step, is_saved in self._ends if is_saved and saved_step == step]
        if saves:
            return saves[-1]
        return max((end for end, earlier, _ in self._ends if earlier <= step), default=0)


class History:
    """What a journal held when a delivery began. One pass over the journal builds it.

    Args:
        journal: The journal.
        progress: How much of it the tracker has.
        rewinds: Whether the tracker can forget points from a step on.

    Attributes:
        begin: The last record with which a training begins.
        names: The names of all values, in the order in which they were first logged.
        superseded: The stretches that a resumed training replaced; see `Timeline`.
        size: How many bytes the journal held.
        start: The offset from which to read on.
        rewind_to: The step from which on the tracker must forget its points.
        is_delivered: Whether the tracker has everything and its run is closed.
        ending: How and when the training ended.
    """

    def __init__(self, journal: Path, progress: DeliveryProgress, rewinds: bool) -> None:
        self.begin: Record | None = None
        self.names: dict[str, None] = {}
        self.size = self.start = self._offset = progress.offset
        self.rewind_to: int | None = None
        self.ending = Ending()
        self._sent: dict[tuple[str, int], list[Sent]] = {}
        timeline, last = Timeline(), None
        starts, steps = array("q"), array("q")  # of the records with logs
        for last in read(journal):
            timeline.add(last)
            self.ending.add(last)
            self.size = max(self.size, last.end)
            if last.kind == "begin":
                self.begin = last
            elif last.kind == "logs":
                starts.append(last.start)
                steps.append(last.step)
                self.names.update(dict.fromkeys(last.content["logs"]))
        self.superseded = timeline.superseded
        closed = progress.status is not None
        ended = last is not None and last.kind == "end" and last.end <= progress.offset
        self.is_delivered = ended and closed
        if progress.run_id is None:
            return
        if rewinds:
            self._rewind(starts, steps, closed)
        else:
            self._remember_what_was_sent(journal, progress)

    def counts(self, record: Record) -> bool:
        """Return whether `record` belongs to the run's history and is still to be delivered."""
        if self._stretch_at(record.start) is not None:
            return False
        if record.start >= self._offset:
            return True
        return record.kind == "logs" and record.step >= (self.rewind_to or 0)

    def value_to_send(
        self, name: str, value: Any, step: int, time: float
    ) -> tuple[Any, float] | None:
        """Return the value and the time to deliver; `None` if the tracker has the point already.

        A value that is the same as before, or that only measures time, keeps the value and the time
        that were logged first: a tracker that recognizes duplicates then drops it.
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

    def _rewind(self, starts: array[int], steps: array[int], closed: bool) -> None:
        """Find the first step whose points the tracker may have and must not get twice."""
        doubtful = []
        for start, step in zip(starts, steps, strict=True):
            stretch = self._stretch_at(start)
            # The tracker forgot the stretches before `offset` when it was served last.
            replaced_since = stretch is not None and stretch[1] >= self._offset
            if replaced_since or (start >= self._offset and not closed):
                doubtful.append(step)
        if not doubtful:
            return
        self.rewind_to = min(doubtful)
        for start, step in zip(starts, steps, strict=True):
            if step >= self.rewind_to and self._stretch_at(start) is None:
                self.start = min(self._offset, start)
                return

    def _remember_what_was_sent(self, journal: Path, progress: DeliveryProgress) -> None:
        """Read the superseded stretches again, for the values that the tracker may have."""
        for begin, end in self.superseded:
            for record in read(journal, begin):
                if record.start >= end:
                    break
                if record.kind != "logs":
                    continue
                certain = record.start < progress.offset and not any(
                    first <= record.start < behind for first, behind in progress.passed_over
                )
                for name, value in record.content["logs"].items():
                    sent = Sent(restored(value), record.content["time"], certain)
                    self._sent.setdefault((name, record.step), []).append(sent)

    def _stretch_at(self, offset: int) -> tuple[int, int] | None:
        return next((s for s in self.superseded if s[0] <= offset < s[1]), None)


def _is_nan(value: Any) -> bool:
    return bool(value != value)
