"""`Session`: records one training, and delivers the record to its trackers."""

from __future__ import annotations

import logging
import os
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from callback_core.arguments import CallbackArguments, output_directory
from callback_core.state import TrainerState
from callback_core.tracking.begin_record import begin_record
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.hard_links import linked_copy, links_in
from callback_core.tracking.journal import Journal
from callback_core.tracking.log_records import LogRecords
from callback_core.tracking.member import DeliveryOptions, Member
from callback_core.tracking.objects import Objects
from callback_core.tracking.redaction import Redaction
from callback_core.tracking.run_folder import (
    NO_CHECKPOINT,
    RunFolder,
    RunOfCheckpoint,
    open_journal,
)
from callback_core.tracking.tracker import Status, Tracker
from callback_core.tracking.tracker_run import TrackerRun

logger = logging.getLogger(__name__)


class Session:
    """Records one training, and what is logged after it, and delivers the record to its trackers.

    The session owns the journal, the redaction and the deliveries. It ends once, at whichever comes
    first: `on_train_end`, the next training in the same folder, or the interpreter's exit.
    `docs/architecture.md` has the diagram of its states. `start_session` makes one.

    Args:
        args: The arguments of the training.
        state: The state of the training. Other callbacks find the session by it.
        model: The model, whose configuration the trackers get.
        folder: The folder for the run. If it cannot be written, another one takes its place.
        training: Whether a training runs. Otherwise a value was logged without one.
        begins: Whether the training begins or resumes now. Otherwise it is under way already.
        resumed: Whether the training resumes from a checkpoint.

    Attributes:
        folder: The folder of the run.
        members: The trackers that take part, by name.
        status: How the training ended; `None` while it runs.

    Raises:
        OSError: No folder for the run can be written to.
    """

    def __init__(
        self,
        args: CallbackArguments,
        state: TrainerState,
        model: Any,
        folder: RunFolder,
        *,
        training: bool,
        begins: bool,
        resumed: bool,
    ) -> None:
        self.members: dict[str, Member] = {}
        self.status: Status | None = None if training else "finished"
        self._waits_from = time.monotonic()
        self._process = os.getpid()
        self._state = weakref.ref(state)
        self._begins = begins
        self._error_before = last_error()
        self._redaction = Redaction()
        self._objects = Objects()
        self._counted_step = -1
        self._events: Counter[tuple[str, str]] = Counter()  # at that step, by member and kind
        self._before_end: list[Callable[[Status], None]] = []
        self._has_trained, self._evaluation_ended = begins, False
        self._journal: Journal | None
        self._journal, self.folder = open_journal(folder)
        # A copy: what the arguments hold may change before this is written.
        self._begin = self._redaction.of(begin_record(args, state, model)) | {"resumed": resumed}
        self._has_begun = False
        has_logs = any(entry["step"] == state.global_step for entry in state.log_history[-1:])
        epoch_step = state.global_step if resumed and has_logs else None
        self._log_records = LogRecords(self.members, self._redaction, self._objects, epoch_step)

    def is_of(self, state: TrainerState) -> bool:
        """Return whether this records the training with this state."""
        return self._state() is state and not self.is_inherited

    @property
    def is_inherited(self) -> bool:
        """Whether the session belongs to the process from which this one was forked."""
        return self._process != os.getpid()

    @property
    def step(self) -> int:
        """The update step of the training; the one where it began if its state is gone."""
        state = self._state()
        return int(self._begin["step"] if state is None else state.global_step)

    @property
    def run_ids(self) -> dict[str, str | None]:
        """The run in each tracker, by the tracker's name; `None` where it is not open yet."""
        return {name: member.run_id for name, member in self.members.items()}

    def join(
        self,
        tracker: Tracker,
        options: DeliveryOptions,
        checkpoint: RunOfCheckpoint = NO_CHECKPOINT,
    ) -> Member:
        """Let a tracker take part.

        Args:
            tracker: The tracker.
            options: How to deliver to it.
            checkpoint: What the checkpoint from which the training resumes says about its run.
        """
        self._redaction.extend(options.redact)
        name, number = tracker.name, 2
        while name in self.members:
            name, number = f"{tracker.name}-{number}", number + 1
        adopted = None
        try:
            adopted = tracker.adopt()
        except Exception as error:
            logger.warning(
                "%s could not look for a run of the program, so it opens its own.",
                name,
                exc_info=error,
            )
        if adopted is not None and options.delivery == "process":
            logger.warning(
                "%s continues a run that this process opened, so a thread delivers to it and not a "
                "process.",
                name,
            )
        continues = checkpoint.run == self.folder.run
        run_id = adopted or (checkpoint.run_id if continues else None)
        run = TrackerRun(tracker, self.folder, name, run_id, adopted is not None)
        consumer = Consumer(run, self._objects)
        member = self.members[name] = Member(name, tracker, options, consumer)
        return member

    def can_continue_with(self, args: CallbackArguments, state: TrainerState) -> bool:
        """Return whether a training that begins now continues the run.

        It does if only evaluations at step 0 were logged so far, and the training writes to the
        same directory. A trial of a search and a training that resumes have runs of their own.
        """
        if self._has_trained:
            return self.is_of(state) and self.status is None
        output_dir = Path(output_directory(args))
        starts = state.global_step == 0 and not state.is_hyper_param_search
        return (
            starts
            and not self.is_inherited
            and self._begin["step"] == 0
            and (self.is_of(state) or self.step == 0)
            and self.folder.output_dir == output_dir
        )

    def begin_training(self, args: CallbackArguments, state: TrainerState, model: Any) -> None:
        """Continue with a training that begins now, unless another callback has done so."""
        if self._has_trained:
            return
        self._has_trained = self._begins = True
        self._evaluation_ended = self.status is not None
        self.status = None
        self._state = weakref.ref(state)
        self._error_before = last_error()
        self._begin = self._redaction.of(begin_record(args, state, model)) | {"resumed": False}
        self._has_begun = False

    def begin(self) -> None:
        """Write that the training begins, unless that is written already."""
        if not self._has_begun:
            self._has_begun = True
            self._begin = self._redaction.of(self._begin)
            self._write(self._begin)

    def log(
        self,
        values: Mapping[str, Any],
        step: int | None = None,
        epoch: float | None = None,
        *,
        summary: bool = False,
    ) -> None:
        """Log values to all trackers. After the training, this opens their runs again.

        Args:
            values: Numbers, strings and single numbers of numpy or torch, by name.
            step: The update step; by default the current one.
            epoch: The epochs that are done by then, if known.
            summary: Whether a training logs each value only once, so that it needs no curve.
        """
        step = self.step if step is None else step
        self._write(self._log_records.of(values, step, epoch, summary=summary))
        for member in self.members.values():
            self.deliver(member)

    def record_logs(
        self, member: Member, logs: Mapping[str, Any], step: int, epoch: float | None
    ) -> None:
        """Write what a log event told `member`, unless another member wrote it."""
        if self._is_first_to_see(member, "logs", step):
            self._write(self._log_records.of(logs, step, epoch))

    def record_save(self, member: Member, step: int) -> None:
        """Write that a checkpoint was saved, unless another member wrote it."""
        if self._is_first_to_see(member, "saved", step):
            self._write({"kind": "saved", "step": step, "time": time.time()})
            if self._journal is not None:
                self._journal.sync()

    def keep(self, member: Member, directory: Path, step: int, name: str | None = None) -> None:
        """Keep a copy of `directory`, made of hard links, for upload to the member's tracker.

        Args:
            member: The member whose tracker gets it.
            directory: The directory, which somebody else may delete at any time.
            step: The update step at which it was written.
            name: What the tracker calls it; by default the directory's name.
        """
        name = name or directory.name
        kept = Path("files") / member.name / name
        number = 1
        while (self.folder.path / kept).exists():  # saved before, and not delivered yet
            number += 1
            kept = kept.with_name(f"{name}.{number}")
        linked_copy(directory, self.folder.path / kept)
        self._write(
            {"kind": "upload", "step": step, "time": time.time(), "for": member.name}
            | {"path": str(kept), "name": name, "links": links_in(self.folder.path / kept)}
        )

    def before_end(self, call: Callable[[Status], None]) -> None:
        """Call `call` once with the status, right before the end of the training is written."""
        self._before_end.append(call)

    def rejoin(self, member: Member) -> None:
        """Let a member whose run holds an evaluation continue it with the training."""
        if not self._evaluation_ended:
            return
        if not member.has_started:
            member.delivery.consumer.continue_with_training()
            return
        if not member.stays_open(time.monotonic() + member.options.flush_limit):
            self.finish(member)
        member.reopen(training=True)

    def deliver(self, member: Member) -> None:
        """Deliver the new records to a member. After the training, that opens its run again."""
        if self.status is None:
            member.notify()
            return
        self.end(self.status)  # the end of what was logged after the training
        if not member.has_started:
            member.delivery.consumer.continue_after_end()
        elif not member.stays_open(self._waits_from + member.options.flush_limit):
            self.finish(member)
            member.reopen()
        member.notify()

    def end(self, status: Status) -> None:
        """Write that the training, or what was logged after it, ended, unless that is done."""
        if self._journal is None:
            return
        while self._before_end:
            call = self._before_end.pop(0)
            try:
                call(status)
            except Exception:
                logger.warning("What was to be logged at the end is missing.", exc_info=True)
        self._write({"kind": "end", "step": self.step, "time": time.time(), "status": status})
        self.status, self._waits_from = status, time.monotonic()
        self._journal.close()
        self._journal = None
        for member in self._served:  # while one is waited for, all deliver
            member.delivery.consumer.training_ended(status)
            member.delivery.hurry()

    def finish(self, member: Member) -> None:
        """Wait for a member's tracker up to its limit, and report what the tracker lacks."""
        if member.delivery.has_ended:
            return
        member.notify()
        member.delivery.finish(self._waits_from + member.options.flush_limit)
        if shortfall := member.delivery.shortfall():
            logger.warning("Training was not affected, but %s.", shortfall)
        try:
            member.tracker.release()
        except Exception as error:
            logger.warning(
                "%s could not undo its changes to this process.", member.name, exc_info=error
            )

    def close(self, status: Status | None = None) -> None:
        """End the session for all members, and wait for their trackers.

        Args:
            status: How the training ended, if no event said so. Without it, the last uncaught error
                decides.
        """
        self.end(self.status or status or self.status_without_end())
        self._waits_from = time.monotonic()  # a run may have stayed open for long
        for member in self._served:
            self.finish(member)

    def status_without_end(self) -> Status:
        """Return how a training ended, if its loop raised an error without firing an event."""
        error = last_error()
        if error is self._error_before:
            error = None
        if isinstance(error, KeyboardInterrupt):
            return "interrupted"
        return "failed" if self._begins or error is not None else "finished"

    @property
    def is_served(self) -> bool:
        """Whether this process still delivers to one of the trackers."""
        return not self.is_inherited and bool(self._served)

    @property
    def stays_open(self) -> bool:
        """Whether the training is over, but a run must be closed before the next training begins.

        The run is kept open for further evaluations, or the SDK can have only one open run. A run
        that a delivery is about to open counts.
        """
        if self.is_inherited or self.status is None:
            return False
        return any(
            member.delivery.consumer.will_stay_open or member.tracker.opens_one_run
            for member in self._served
        )

    def is_replaced_in(self, folder: RunFolder) -> bool:
        """Return whether this never ended, but its state is gone or `folder` gets a new session."""
        replaced = self._state() is None or self.folder.path.name == folder.path.name
        return self.status is None and replaced and not self.is_inherited

    def close_unused_runs(self) -> None:
        """Close the runs that are kept open, without waiting, once the training's state is gone.

        A session that recorded only evaluations stays open, because a training with another state
        may continue it.
        """
        is_gone = self._state() is None and self._has_trained
        if is_gone and self.status is not None and not self.is_inherited:
            for member in self._served:
                member.delivery.consumer.close_run()
                member.delivery.hurry()

    def is_over(self) -> bool:
        """Return whether nothing can come any more: the state is gone and each delivery ended."""
        return self._state() is None and self.status is not None and not self._served

    @property
    def _served(self) -> list[Member]:
        """The members whose trackers still get something."""
        return [member for member in self.members.values() if member.is_served]

    def _is_first_to_see(self, member: Member, kind: str, step: int) -> bool:
        """Return whether no other member has seen this event of a step.

        Each member's callback sees each event. The n-th that one member sees at a step is the n-th
        that another sees, whatever other callbacks changed in it between the two.
        """
        if step != self._counted_step:
            self._counted_step, self._events = step, Counter()
        self._events[member.name, kind] += 1
        if self._events[member.name, kind] <= self._events["", kind]:
            return False
        self._events["", kind] += 1
        return True

    def _write(self, record: dict[str, Any]) -> None:
        self.begin()
        if self._journal is None:
            self._journal, self.folder = open_journal(self.folder)
        self._journal.append(record)


def last_error() -> BaseException | None:
    """Return the last uncaught error, as the interpreter or a notebook keeps it."""
    error: BaseException | None = getattr(sys, "last_value", None)
    return error
