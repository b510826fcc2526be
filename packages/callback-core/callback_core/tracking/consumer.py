"""`Consumer`: delivers the journal of a run to one tracker, and keeps its progress in a file."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict, fields, replace
from enum import Enum, auto
from typing import Any

from callback_core.tracking.batching import MOST_TRIES, Batches
from callback_core.tracking.calls import Abandoned, TrackerCalls
from callback_core.tracking.delivery_progress import DeliveryProgress
from callback_core.tracking.hard_links import changed_since
from callback_core.tracking.history import History
from callback_core.tracking.identity import identity_of
from callback_core.tracking.journal import DAMAGED, Record, read
from callback_core.tracking.limits import fitting_parameters
from callback_core.tracking.lock import FileLock
from callback_core.tracking.objects import Objects
from callback_core.tracking.run_folder import RunFolder
from callback_core.tracking.scrubbing import scrubbed
from callback_core.tracking.tracker import (
    Opening,
    Rejected,
    RunNotFound,
    Status,
    Tracker,
    Upload,
)

logger = logging.getLogger(__name__)


class RunState(Enum):
    """Where a run stands in its tracker. `docs/architecture.md` has the diagram."""

    UNOPENED = auto()
    OPEN = auto()
    CLOSED = auto()
    """The training ended and the run is closed. More logs open it again."""
    DONE = auto()
    """The run is closed and the whole journal is delivered."""


class Consumer:
    """Delivers the journal of a run to a tracker.

    Args:
        tracker: The tracker.
        folder: The folder of the run.
        name: The tracker's name among those of the run.
        run_id: The tracker's run, if a checkpoint names it or the user opened it. `None` takes the
            one from the run's files.
        adopted: Whether the user opened that run.
        objects: The values that the journal only notes, if this process trains.

    Attributes:
        progress: How much of the journal the tracker has.
        calls: Calls the tracker. `abandon` ends these calls.
    """

    def __init__(
        self,
        tracker: Tracker,
        folder: RunFolder,
        name: str,
        run_id: str | None = None,
        adopted: bool = False,
        objects: Objects | None = None,
    ) -> None:
        self.tracker, self.folder, self.name = tracker, folder, name
        self.calls = TrackerCalls()
        self.progress = DeliveryProgress()
        self.reload()
        if run_id is None and self.progress.run_id is None:
            known = folder.read_tracker(name)  # written before anybody opened the run
            run_id, adopted = known.get("run_id"), known.get("adopted", False)
        self._continue_run(run_id, adopted)
        self._state = RunState.UNOPENED
        self._ended_as: Status | None = None
        self._is_after_training = self._must_close = False
        self._lock: FileLock | None = None
        self._history: History | None = None
        self._begin: dict[str, Any] = {}
        self._read_to = 0
        self._rewind_to: int | None = None
        self.objects = objects
        self._batches = Batches(tracker, self.calls, self.progress.left_out, name, objects)
        self._parameters_are_due = False
        self._failures = 0  # in a row, to log the parameters
        self._warned_of_progress = self._is_idle = False
        self._has_replaced_run = False

    @property
    def done(self) -> bool:
        """Whether the run has ended and the tracker has everything."""
        return self._state is RunState.DONE

    @property
    def is_open(self) -> bool:
        """Whether the run is open in the tracker, through this consumer."""
        return self._state is RunState.OPEN

    @property
    def stays_open(self) -> bool:
        """Whether the run is open, and stays open because further evaluations may follow."""
        closes = self._must_close or self.calls.are_abandoned
        return not closes and self._outlasts_evaluations()

    @property
    def will_stay_open(self) -> bool:
        """Whether the run stays open for further evaluations once it is open."""
        closes = self._must_close or self.calls.are_abandoned or self.done
        return not closes and self._is_after_training and self.tracker.keeps_open

    @property
    def is_idle(self) -> bool:
        """Whether the tracker has everything, and its run stays open for further evaluations."""
        return self._is_idle and self.stays_open

    @property
    def delivered(self) -> int:
        """How many points this consumer delivered."""
        return self._batches.delivered

    @property
    def run_id(self) -> str | None:
        """The tracker's run, whichever process opened it."""
        return self.progress.run_id or self.folder.read_progress(self.name).get("run_id")

    @property
    def run_url(self) -> str | None:
        """The address of the run's page, whichever process opened it; `None` if it has none."""
        return self.progress.run_url or self.folder.read_progress(self.name).get("run_url")

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
        self.calls.check()
        ended_as = self._ended_as  # read first: the journal is complete by then
        self._is_idle = self._is_idle and only_logs
        history = self._history_under_lock()
        if not self._begin:
            return
        for record in read(self.folder.journal, self._read_to):
            if only_logs and record.kind in ("begin", "upload", "end"):
                self._flush()
                return
            is_new = record.start >= history.size
            if is_new:
                history.ending.add(record)
            if is_new and record.kind == "begin" and record.content["resumed"]:
                self._start_over()  # this record may supersede what was delivered
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
        is_closed = self._state is RunState.CLOSED
        closes = not self.stays_open  # read first: `continue_with_training` changes it last
        if ended_as is not None and self._ended_as is not None and closes and not is_closed:
            self._open()
            self._close(history.ending.status or ended_as)
        self._is_idle = True
        if self._state is RunState.CLOSED:
            self._state = RunState.DONE
            self.release()

    def training_ended(self, status: Status = "failed") -> None:
        """Close the run after the last record, even if no record says that the training ended.

        Args:
            status: How it ended, if no record says so.
        """
        self._ended_as = status

    def continue_after_end(self) -> None:
        """Deliver what is logged after the training. That opens the run again."""
        self._reopen(is_after_training=True)

    def continue_with_training(self) -> None:
        """Deliver a training that begins after an evaluation, into the same run."""
        self._ended_as = None
        self._reopen(is_after_training=False)

    def _reopen(self, is_after_training: bool) -> None:
        if self._state is RunState.DONE:
            self._state = RunState.CLOSED
        self._is_after_training, self._must_close = is_after_training, False

    def close_run(self) -> None:
        """Close the run after the last record, even if it would stay open for evaluations."""
        self._must_close = True

    def delivered_elsewhere(self) -> None:
        """Note that another process delivered everything and closed the run."""
        self._state = RunState.DONE

    def pending(self) -> int:
        """Return how many points of the journal the tracker lacks."""
        history = self._history
        if history is None:
            history = History(self.folder.journal, self.progress, rewinds=False)
        records = read(self.folder.journal, self.progress.offset)
        return sum(
            len(r.content["logs"]) for r in records if r.kind == "logs" and history.counts(r)
        )

    def write_identity(self) -> None:
        """Write how to make the tracker and which run it opens, for a delivery elsewhere."""
        run = {"run_id": self.progress.run_id, "adopted": self.progress.adopted}
        self.folder.write_tracker(self.name, {**identity_of(self.tracker), **run})

    def reload(self) -> None:
        """Read the progress that another process may have made."""
        known = {entry.name for entry in fields(DeliveryProgress)} - {"left_out"}
        kept = self.folder.read_progress(self.name)
        self.progress.left_out.update(kept.get("left_out", {}))
        self.progress = replace(self.progress, **{k: v for k, v in kept.items() if k in known})

    def save_failure(self, failure: str | None, refused: bool = False) -> None:
        """Note for the training why this process ends before everything is delivered.

        Args:
            failure: Why.
            refused: Whether the tracker will never open its run.
        """
        self.progress.failure, self.progress.refused = failure, refused
        self._save_progress()

    def abandon(self) -> None:
        """Stop waiting for the tracker: when its call returns, nothing more is delivered.

        Until then, nobody else may deliver this run: the call may still open one.
        """
        if not self.calls.abandon():
            self.release()

    def release(self) -> None:
        """Let others deliver this run to this tracker."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _continue_run(self, run_id: str | None, adopted: bool) -> None:
        """Continue the run `run_id` if the user opened it, or if the progress names no other.

        A checkpoint may name an older run, which was gone, so that another took its place.
        """
        if run_id is not None and (adopted or self.progress.run_id is None):
            self.progress.run_id, self.progress.adopted = run_id, adopted

    def _history_under_lock(self) -> History:
        """Return the history of the journal, once nobody else delivers to this tracker."""
        if self._lock is None:
            self._lock = FileLock(self.folder.lock_of(self.name))
            run_id, adopted = self.progress.run_id, self.progress.adopted
            self.reload()  # another process may have delivered meanwhile
            self._continue_run(run_id, adopted)
            if self.progress.offset != self._read_to:
                self._history = None
        if self._history is None:
            history = History(self.folder.journal, self.progress, self.tracker.rewinds)
            if history.begin is not None:
                self._history, self._begin = history, history.begin.content
                self._read_to, self._rewind_to = history.start, history.rewind_to
                self._batches.know(history.names)
            if history.is_delivered:
                self._state = RunState.CLOSED
            return history
        return self._history

    def _start_over(self) -> None:
        """Deliver from where the resumed training begins."""
        self._batches.clear()
        if self._state is RunState.OPEN:
            self._close("failed")
        self._state = RunState.UNOPENED
        self.progress.status = None  # the tracker may have more than the progress says
        self._history = None

    def _replace_run(self, error: RunNotFound) -> None:
        logger.warning("%s: %s. Everything is delivered to a new run.", self.name, error)
        self._has_replaced_run = True
        self.forget_run()

    def forget_run(self) -> None:
        """Forget the tracker's run, so that a new one is opened and gets everything."""
        self._batches.clear()
        left_out = self.progress.left_out
        left_out.clear()
        self.progress = DeliveryProgress(left_out=left_out, runs_gone=self.progress.runs_gone + 1)
        self._state, self._history, self._read_to = RunState.UNOPENED, None, 0
        self._save_progress()

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
            self.progress.left_out[f"byte {record.start} of the journal"] = "a damaged line"
        elif record.kind == "begin":
            self._begin = record.content
            self._open()
            self._log_parameters()
        elif record.kind == "upload" and record.content["for"] == self.name:
            self._open()
            self._upload(record)
        elif record.kind == "end" and not self._outlasts_evaluations():
            self._open()
            self._close(record.content["status"])

    def _flush(self) -> None:
        """Deliver the batches, and save the progress."""
        if self._batches:
            self._open()
            self._batches.deliver()
        if self._read_to > self.progress.offset:
            self.progress.offset = self._read_to
            self._save_progress()

    def _open(self) -> None:
        if self._state is RunState.OPEN:
            return
        progress, begin = self.progress, self._begin
        opening = Opening(
            name=begin.get("run_name"),
            output_dir=self.folder.output_dir,
            folder=self.folder.of_tracker(self.name, progress.runs_gone),
            run_id=progress.run_id,
            adopted=progress.adopted,
            step=begin["step"],
            time=begin["time"],
            rewind_to=self._rewind_to,
            trial_name=begin.get("trial_name"),
            trial_parameters=begin.get("trial_parameters"),
        )
        progress.run_id = self.calls(self.tracker.open, opening)
        progress.run_url = None if self.tracker.run_url is None else scrubbed(self.tracker.run_url)
        self._state, progress.status = RunState.OPEN, None
        self._rewind_to = None
        if opening.rewind_to is not None and opening.rewind_to <= 0:
            progress.parameters = None  # the tracker forgot them too
            self._log_parameters()
        self._save_progress()

    def _log_parameters(self) -> None:
        # A hyperparameter of a search need not be an argument of the training.
        arguments = {**self._begin["arguments"], **(self._begin.get("trial_parameters") or {})}
        parameters, cut = fitting_parameters(
            self.tracker.parameters_of(arguments, self._begin["model_config"]), self.tracker.limits
        )
        self.progress.left_out.update(cut)
        if parameters == self.progress.parameters:
            return
        self._parameters_are_due = True
        try:
            self.calls(self.tracker.log_parameters, parameters)
            self.progress.left_out.pop("parameters", None)
        except Rejected as error:
            self.progress.left_out["parameters"] = f"rejected: {error}"
        except Abandoned:
            raise
        except Exception as error:
            self._failures += 1
            if self._failures < MOST_TRIES:
                raise
            self.progress.left_out["parameters"] = f"failed: {type(error).__name__}: {error}"
            return  # deliver the points first; try these again before the run is closed
        self._parameters_are_due, self.progress.parameters = False, parameters

    def _pass_over(self, record: Record) -> None:
        """Leave out a record that a resumed training replaced."""
        passed_over = self.progress.passed_over
        if passed_over and passed_over[-1][1] == record.start:
            passed_over[-1][1] = record.end
        elif not self.tracker.rewinds:  # one that rewinds forgets them, sent or not
            passed_over.append([record.start, record.end])
        if record.kind == "upload" and record.content["for"] == self.name:
            self._remove_kept_copy(record)

    def _upload(self, record: Record) -> None:
        name, path = record.content["name"], self.folder.path / record.content["path"]
        if not path.is_dir():
            self.progress.left_out[name] = "its files are gone"
            return
        if changed := changed_since(path, record.content.get("links", {})):
            self.progress.left_out[name] = f"overwritten after it was saved: {', '.join(changed)}"
            self._remove_kept_copy(record)
            return
        try:
            self.calls(self.tracker.log_files, Upload(path, name, record.step))
        except Rejected as error:
            self.progress.left_out[name] = f"rejected: {error}"
        self._remove_kept_copy(record)

    def _remove_kept_copy(self, record: Record) -> None:
        shutil.rmtree(self.folder.path / record.content["path"], ignore_errors=True)

    def _outlasts_evaluations(self) -> bool:
        """Return whether the run is not closed after each of several evaluations."""
        return self._is_after_training and self.is_open and self.tracker.keeps_open

    def _close(self, status: Status) -> None:
        """Close the run. Where it is not open, the tracker has its end already."""
        if self._state is RunState.OPEN:
            if self._parameters_are_due:
                self._log_parameters()
            if self._history is not None:
                self.tracker.ended_at = self._history.ending.time
            self.calls(self.tracker.close, None if self.progress.adopted else status)
        self._state, self.progress.status = RunState.CLOSED, status
        self._save_progress()

    def _save_progress(self) -> None:
        try:
            self.folder.write_progress(self.name, asdict(self.progress))
        except OSError as error:  # delivery continues from memory
            if not self._warned_of_progress:
                self._warned_of_progress = True
                logger.warning(
                    "Could not save the delivery progress of %s: %s. Delivery continues.",
                    self.name,
                    error,
                )
