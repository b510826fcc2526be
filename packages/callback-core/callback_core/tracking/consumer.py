"""`Consumer`: delivers the journal of a run to one tracker."""

from __future__ import annotations

import logging

from callback_core.tracking.batching import Batches
from callback_core.tracking.history import History
from callback_core.tracking.journal import DAMAGED, Record, read
from callback_core.tracking.lock import FileLock
from callback_core.tracking.objects import Objects
from callback_core.tracking.tracker import RunNotFound, Status
from callback_core.tracking.tracker_run import RunState, TrackerRun

logger = logging.getLogger(__name__)


class Consumer:
    """Delivers the journal of a run to a tracker.

    Args:
        run: The run in the tracker.
        objects: Values of an SDK's own types, to which the journal only refers; `None` outside of
            the training's process.

    Attributes:
        run: The run in the tracker.
        tracker: The tracker.
        folder: The folder of the training's run.
        name: The tracker's name among those of the run.
    """

    def __init__(self, run: TrackerRun, objects: Objects | None = None) -> None:
        self.run = run
        self.tracker, self.folder, self.name = run.tracker, run.folder, run.name
        self._ended_as: Status | None = None
        self._is_after_training = self._must_close = False
        self._lock: FileLock | None = None
        self._history: History | None = None
        self._read_to = 0
        self.objects = objects
        self._batches = Batches(run.tracker, run.calls, run.progress.left_out, run.name, objects)
        self._ends = 0  # how often the journal was said to be complete
        self._delivered_ends: int | None = None  # the same, when everything was delivered last
        self._has_replaced_run = False

    @property
    def done(self) -> bool:
        """Whether the run has ended and the tracker has everything."""
        return self.run.state is RunState.DONE

    @property
    def is_open(self) -> bool:
        """Whether the run is open in the tracker, through this consumer."""
        return self.run.state is RunState.OPEN

    @property
    def stays_open(self) -> bool:
        """Whether the run is open, and stays open because further evaluations may follow."""
        return self.is_open and self.will_stay_open

    @property
    def will_stay_open(self) -> bool:
        """Whether the run stays open for further evaluations once it is open."""
        closes = self._must_close or self.run.calls.are_abandoned or self.done
        return not closes and self._is_after_training and self.tracker.keeps_open

    @property
    def is_idle(self) -> bool:
        """Whether the tracker has everything, and its run stays open for further evaluations."""
        return self._delivered_ends == self._ends and self.stays_open

    @property
    def delivered(self) -> int:
        """How many points this consumer delivered."""
        return self._batches.delivered

    def deliver(self, *, only_logs: bool = False) -> None:
        """Deliver what the journal holds now.

        Args:
            only_logs: Stop before an upload or the end of the training.

        Raises:
            Abandoned: Nobody waits for the tracker any longer.
            Held: Somebody else delivers this run to this tracker.
            Rejected: The tracker will never open the run.
            Exception: What the tracker raised. The next call continues from there.
        """
        try:
            self._deliver(only_logs)
        except RunNotFound as error:
            if self._has_replaced_run:
                raise
            self._replace_run(error)
            self._deliver(only_logs)

    def _deliver(self, only_logs: bool) -> None:
        self.run.calls.check()
        ends, ended_as = self._ends, self._ended_as  # read first: the journal is complete by then
        if not only_logs:
            self._delivered_ends = None
        history = self._history_under_lock()
        if not self.run.begin:
            return
        for record in read(self.folder.journal, self._read_to):
            if only_logs and record.kind in ("begin", "upload", "end"):
                self._flush()
                return
            is_new = record.start >= history.size
            if is_new:
                history.ending.add(record)
            if is_new and record.kind == "begin" and record.content["resumed"]:
                self._start_over(history)  # this record may supersede what was delivered
                self._deliver(only_logs)
                return
            if history.counts(record):
                self._take(record, history)
            else:
                self._pass_over(record)
            self._read_to = record.end
            if record.kind != "logs":
                self._flush()
        self._flush()
        if only_logs:
            return
        is_closed = self.run.state is RunState.CLOSED
        closes = not self.stays_open  # read first: `continue_with_training` changes it last
        if ended_as is not None and self._ended_as is not None and closes and not is_closed:
            self.run.open()
            self.run.close(history.ending.status or ended_as, history.ending.time)
        self._delivered_ends = ends
        if self.run.state is RunState.CLOSED:
            self.run.state = RunState.DONE
            self.release()

    def training_ended(self, status: Status = "failed") -> None:
        """Close the run after the last record, even if no record says that the training ended.

        Args:
            status: How it ended, if no record says so.
        """
        self._ended_as = status
        self._ends += 1

    def continue_after_end(self) -> None:
        """Deliver what is logged after the training. That opens the run again."""
        self._reopen(is_after_training=True)

    def continue_with_training(self) -> None:
        """Deliver a training that begins after an evaluation, into the same run."""
        self._ended_as = None
        self._reopen(is_after_training=False)

    def _reopen(self, is_after_training: bool) -> None:
        if self.run.state is RunState.DONE:
            self.run.state = RunState.CLOSED
        self._is_after_training, self._must_close = is_after_training, False

    def close_run(self) -> None:
        """Close the run after the last record, even if it would stay open for evaluations."""
        self._must_close = True

    def delivered_elsewhere(self) -> None:
        """Note that another process delivered everything and closed the run."""
        self.run.state = RunState.DONE

    def pending(self) -> int:
        """Return how many points of the journal the tracker lacks."""
        history = self._history
        if history is None:
            history = History(self.folder.journal, self.run.progress, rewinds=False)
        records = read(self.folder.journal, self.run.progress.offset)
        return sum(
            len(r.content["logs"]) for r in records if r.kind == "logs" and history.counts(r)
        )

    def abandon(self) -> None:
        """Stop waiting for the tracker: when its call returns, nothing more is delivered.

        Until then, nobody else may deliver this run: the call may still open one.
        """
        if not self.run.calls.abandon():
            self.release()

    def release(self) -> None:
        """Let others deliver this run to this tracker."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _history_under_lock(self) -> History:
        """Return the history of the journal, once nobody else delivers to this tracker."""
        if self._lock is None:
            self._lock = FileLock(self.folder.lock_of(self.name))
            run_id, adopted = self.run.progress.run_id, self.run.progress.adopted
            self.run.reload()  # another process may have delivered meanwhile
            self.run.continue_with(run_id, adopted)
            if self.run.progress.offset != self._read_to:
                self._history = None
        if self._history is None:
            history = History(self.folder.journal, self.run.progress, self.tracker.rewinds)
            if history.begin is not None:
                self._history, self.run.begin = history, history.begin.content
                self._read_to, self.run.rewind_to = history.start, history.rewind_to
                self._batches.know(history.names)
            if history.is_delivered:
                self.run.state = RunState.CLOSED
            return history
        return self._history

    def _start_over(self, history: History) -> None:
        """Deliver from where the resumed training begins."""
        self._batches.clear()
        if self.run.state is RunState.OPEN:
            self.run.close("failed", history.ending.time)
        self.run.state = RunState.UNOPENED
        self.run.progress.status = None  # the tracker may have more than the progress says
        self._history = None

    def _replace_run(self, error: RunNotFound) -> None:
        logger.warning("%s: %s. Everything is delivered to a new run.", self.name, error)
        self._has_replaced_run = True
        self.forget_run()

    def forget_run(self) -> None:
        """Forget the tracker's run, so that a new one is opened and gets everything."""
        self._batches.clear()
        self.run.forget()
        self._history, self._read_to = None, 0

    def _take(self, record: Record, history: History) -> None:
        """Deliver `record`, or keep it for a batch."""
        if record.kind == "logs":
            self._batches.add(record, history)
            if self._batches.full:
                self._read_to = record.end
                self._flush()
            return
        self._flush()
        if record.kind == DAMAGED:
            self.run.progress.left_out[f"byte {record.start} of the journal"] = "a damaged line"
        elif record.kind == "begin":
            self.run.begin = record.content
            self.run.open()
            self.run.log_parameters()
        elif record.kind == "upload" and record.content["for"] == self.name:
            self.run.open()
            self.run.upload(record)
        elif record.kind == "end" and not self._is_kept_open():
            self.run.open()
            self.run.close(record.content["status"], history.ending.time)

    def _flush(self) -> None:
        """Deliver the batches, and save the progress."""
        if self._batches:
            self.run.open()
            self._batches.deliver()
        if self._read_to > self.run.progress.offset:
            self.run.progress.offset = self._read_to
            self.run.save()

    def _pass_over(self, record: Record) -> None:
        """Leave out a record that a resumed training replaced."""
        passed_over = self.run.progress.passed_over
        if passed_over and passed_over[-1][1] == record.start:
            passed_over[-1][1] = record.end
        elif not self.tracker.rewinds:  # one that rewinds forgets them, sent or not
            passed_over.append([record.start, record.end])
        if record.kind == "upload" and record.content["for"] == self.name:
            self.run.remove_kept_copy(record)

    def _is_kept_open(self) -> bool:
        """Return whether the run stays open after an evaluation, because more may follow."""
        return self._is_after_training and self.is_open and self.tracker.keeps_open
