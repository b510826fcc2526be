"""`Session`: records one training, and delivers the record to its trackers."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from callback_core.arguments import CallbackArguments, output_directory
from callback_core.state import TrainerState
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery.base import (
    DELIVERY_KINDS,
    Delivery,
    DeliveryKind,
    DeliveryState,
)
from callback_core.tracking.delivery.inline import InlineDelivery
from callback_core.tracking.delivery.process import ProcessDelivery
from callback_core.tracking.delivery.thread import ThreadDelivery
from callback_core.tracking.hard_links import linked_copy, links_in
from callback_core.tracking.journal import Journal
from callback_core.tracking.limits import distinct_name
from callback_core.tracking.objects import Objects
from callback_core.tracking.redaction import Redaction
from callback_core.tracking.run_folder import (
    NO_CHECKPOINT,
    RunFolder,
    RunOfCheckpoint,
    open_journal,
    warn_of_pending_runs,
)
from callback_core.tracking.scrubbing import REDACTED, scrubbed
from callback_core.tracking.tracker import Limits, Status, Tracker
from callback_core.tracking.values import plain

logger = logging.getLogger(__name__)


@dataclass
class DeliveryOptions:
    """How a session delivers to one tracker.

    Attributes:
        delivery: `thread`, `process` or `inline`.
        open_limit: Seconds after which nobody waits any longer for a run that does not open.
        flush_limit: Seconds that the end of training waits for the tracker.
        redact: Names of arguments and logs whose values are secrets, for all trackers of a session.

    Raises:
        ValueError: A limit is negative, `delivery` is none of the three, or `redact` is a string.
    """

    delivery: DeliveryKind = "thread"
    open_limit: float = 60.0
    flush_limit: float = 30.0
    redact: Iterable[str] = ()

    def __post_init__(self) -> None:
        if self.delivery not in DELIVERY_KINDS:
            raise ValueError(
                f"delivery is {self.delivery!r}, it must be one of: {', '.join(DELIVERY_KINDS)}."
            )
        for name in ("open_limit", "flush_limit"):
            limit = getattr(self, name)
            if not limit >= 0:
                raise ValueError(f"{name} is {limit!r}, it must be seconds, 0 or more.")
        if isinstance(self.redact, str):
            raise ValueError(f"redact is {self.redact!r}, it must be a list of names.")
        self.redact = tuple(self.redact)


class Member:
    """A tracker that takes part in a session.

    Attributes:
        name: Its name in the session: the tracker's, with a number if that is taken.
        tracker: The tracker.
        options: How the session delivers to it.
        delivery: The delivery to it.
    """

    def __init__(
        self, name: str, tracker: Tracker, options: DeliveryOptions, consumer: Consumer
    ) -> None:
        self.name, self.tracker, self.options = name, tracker, options
        # A delivery imports it too, but later.
        self._is_awaited = tracker.sdk in sys.modules
        self.delivery = self._delivery_of(consumer)

    @property
    def run_id(self) -> str | None:
        """The run in the tracker; `None` as long as nobody opened it."""
        return self.delivery.consumer.run_id

    def takes(self, value: Any) -> bool:
        """Return whether the tracker takes a value that only this process has."""
        return not isinstance(self.delivery, ProcessDelivery) and self.tracker.takes(value)

    @property
    def run_url(self) -> str | None:
        """The address of the run's page; `None` if it has none, or is not open yet."""
        return self.delivery.consumer.run_url

    @property
    def has_started(self) -> bool:
        """Whether the delivery has started, so that the run is open or about to be opened."""
        return self.delivery.state is not DeliveryState.WAITING

    @property
    def is_served(self) -> bool:
        """Whether the session still delivers to the tracker."""
        return not (self.delivery.has_ended or self.delivery.consumer.done)

    def notify(self) -> None:
        """Deliver the new records, and start to do so if necessary."""
        if not self.has_started:
            self.delivery.start()
        self.delivery.notify()

    def wait_for_run(self) -> None:
        """Wait once, a short while, for the run if the program may add to it with the SDK's calls.

        Otherwise, what the program logs at the first steps would not reach the run.
        """
        if self._is_awaited:
            self._is_awaited = False
            limit = min(self.tracker.longest_wait, self.options.open_limit)
            if not self.delivery.wait_for_run(limit):
                logger.warning(
                    "%s has not opened its run in the first %g s. Training begins. Until the run "
                    "is open, the program's own calls of %s do not reach it.",
                    self.name,
                    limit,
                    self.tracker.sdk,
                )

    def stays_open(self, deadline: float) -> bool:
        """Wait until all is delivered, and return whether the run stays open for more.

        Args:
            deadline: When to stop waiting, in monotonic seconds.
        """
        if self.delivery.state is DeliveryState.RUNNING:
            self.delivery.wait(deadline)
        return self.delivery.consumer.stays_open

    def reopen(self, *, training: bool = False) -> None:
        """Prepare to deliver what is logged after the delivery ended.

        Args:
            training: Whether a training follows. Otherwise, evaluations follow.
        """
        if self.delivery.refused:
            return
        consumer = self.delivery.consumer
        if not (consumer.done or consumer.stays_open):  # it was abandoned
            self.tracker = self.usable_tracker()
            consumer = Consumer(
                self.tracker, consumer.folder, consumer.name, objects=consumer.objects
            )
        was_open = consumer.stays_open
        if training:
            consumer.continue_with_training()
        else:
            consumer.continue_after_end()
        if was_open:
            self.delivery.hurry()
        else:
            self.delivery = self._delivery_of(consumer)

    def usable_tracker(self) -> Tracker:
        """Return the tracker; an equal new one if a call never returned and settings allow it."""
        settings = self.tracker.settings()
        hangs = self.delivery.state is DeliveryState.GIVEN_UP
        return type(self.tracker)(**settings) if hangs and settings is not None else self.tracker

    def _delivery_of(self, consumer: Consumer) -> Delivery:
        kind, open_limit = self.options.delivery, self.options.open_limit
        if kind == "process" and not consumer.progress.adopted:
            return ProcessDelivery(consumer, open_limit)
        if kind == "inline":
            return InlineDelivery(consumer, open_limit)
        return ThreadDelivery(consumer, open_limit)


class Session:
    """Records one training, and what is logged after it, and delivers the record to its trackers.

    The session owns the journal, the redaction and the deliveries. It ends once, at whichever comes
    first: the event, the next training in the same folder, or the interpreter's exit.
    `docs/architecture.md` has the diagram of its states.

    Args:
        args: The arguments of the training.
        state: The state of the training. Other callbacks find the session by it.
        model: The model, whose configuration the trackers get.
        checkpoint: What the checkpoint from which the training resumes says about its run.
        training: Whether a training runs. Otherwise a value was logged without one.
        begins: Whether the training begins or resumes now. Otherwise it is under way already.

    Attributes:
        folder: The folder of the run.
        members: The trackers that take part, by name.
        status: How the training ended; `None` while it runs.

    Raises:
        OSError: No place can be written.
    """

    def __init__(
        self,
        args: CallbackArguments,
        state: TrainerState,
        model: Any,
        *,
        checkpoint: RunOfCheckpoint = NO_CHECKPOINT,
        training: bool = True,
        begins: bool = True,
    ) -> None:
        self.members: dict[str, Member] = {}
        self.status: Status | None = None if training else "finished"
        self._ended_at = time.monotonic()
        self._process = os.getpid()
        self._state = weakref.ref(state, _forget_finished_sessions)
        self._begins = begins
        self._error_before = last_error()
        self._redaction = Redaction()
        self._objects = Objects()
        self._names: dict[Any, str] = {}  # of logs -> without what looks like a secret
        self._counted_step = -1
        self._events: Counter[tuple[str, str]] = Counter()  # at that step, by member and kind
        self._before_end: list[Callable[[Status], None]] = []
        self._has_trained, self._evaluation_ended = begins, False
        resumed = training and begins and state.global_step > 0
        output_dir = Path(output_directory(args))
        at = state.global_step if resumed else 0
        folder = RunFolder.of_training(output_dir, checkpoint, at)
        self.close_open_runs()
        for other in [one for one in _SESSIONS if one.is_replaced_in(folder)]:
            other.close()
        self._journal: Journal | None
        self._journal, self.folder = open_journal(folder)
        # A copy: what the arguments hold may change before this is written.
        self._begin = self._redaction.of(_begin_record(args, state, model)) | {"resumed": resumed}
        self._has_begun = False
        self._epoch_step = state.global_step if resumed else None
        _SESSIONS.append(self)
        with suppress(OSError):
            warn_of_pending_runs(
                self.folder.output_dir,
                but={one.folder.path for one in _SESSIONS if one is self or one.is_served},
            )

    @classmethod
    def of(cls, state: TrainerState) -> Session | None:
        """Return the session of the training with this state, if there is one."""
        _forget_finished_sessions()
        return next((one for one in reversed(_SESSIONS) if one.is_of(state)), None)

    @staticmethod
    def close_open_runs() -> None:
        """Close the runs that stay open for further evaluations, as the interpreter's exit does."""
        for session in [one for one in _SESSIONS if one.stays_open]:
            session.close()

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
            logger.warning("%s opens a run of its own.", name, exc_info=error)
        if adopted is not None and options.delivery == "process":
            logger.warning(
                "%s continues a run that this process opened, so a thread delivers to it and not a "
                "process.",
                name,
            )
        continues = checkpoint.run == self.folder.run
        run_id = adopted or (checkpoint.run_id if continues else None)
        consumer = Consumer(tracker, self.folder, name, run_id, adopted is not None, self._objects)
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
        for other in [one for one in _SESSIONS if one.stays_open and one is not self]:
            other.close()
        if self not in _SESSIONS:  # it was over
            _SESSIONS.append(self)
        self._has_trained = self._begins = True
        self._evaluation_ended = self.status is not None
        self.status = None
        self._state = weakref.ref(state, _forget_finished_sessions)
        self._error_before = last_error()
        self._begin = self._redaction.of(_begin_record(args, state, model)) | {"resumed": False}
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
        self._write_logs(values, self.step if step is None else step, epoch, summary)
        for member in self.members.values():
            self.deliver(member)

    def record_logs(
        self, member: Member, logs: Mapping[str, Any], step: int, epoch: float | None
    ) -> None:
        """Write what a log event told `member`, unless another member wrote it."""
        if self._is_first_to_see(member, "logs", step):
            self._write_logs(logs, step, epoch)

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
        """Let a member that has an evaluation take part in the training that continues its run."""
        if not self._evaluation_ended:
            return
        if not member.has_started:
            member.delivery.consumer.continue_with_training()
            return
        if not member.stays_open(time.monotonic() + member.options.flush_limit):
            self.finish(member)
        member.reopen(training=True)

    def deliver(self, member: Member) -> None:
        """Deliver what is new to a member. After the training, that opens its run again."""
        if self.status is None:
            member.notify()
            return
        self.end(self.status)  # of what was logged after the training
        if not member.has_started:
            member.delivery.consumer.continue_after_end()
        elif not member.stays_open(self._ended_at + member.options.flush_limit):
            self.finish(member)
            member.reopen()
        member.notify()

    def end(self, status: Status) -> None:
        """Write that the training, or what was logged after it, ended, unless that is done."""
        if self._journal is None:
            return
        for call in self._calls_before_end():
            try:
                call(status)
            except Exception:
                logger.warning("What was to be logged at the end is missing.", exc_info=True)
        self._write({"kind": "end", "step": self.step, "time": time.time(), "status": status})
        self.status, self._ended_at = status, time.monotonic()
        self._journal.close()
        self._journal = None
        for member in self.members.values():  # while one is waited for, all deliver
            if member.is_served:
                member.delivery.consumer.training_ended(status)
                member.delivery.hurry()

    def finish(self, member: Member) -> None:
        """Wait for a member's tracker up to its limit, and report what the tracker lacks."""
        if member.delivery.has_ended:
            return
        member.notify()
        member.delivery.finish(self._ended_at + member.options.flush_limit)
        if shortfall := member.delivery.shortfall():
            logger.warning("Training was not affected, but %s.", shortfall)
        try:
            member.tracker.release()
        except Exception as error:
            logger.warning("%s left something in the training.", member.name, exc_info=error)

    def close(self, status: Status | None = None) -> None:
        """End the session for all members, and wait for their trackers.

        Args:
            status: How the training ended, if no event said so. Without it, the last uncaught error
                decides.
        """
        self.end(self.status or status or self.status_without_end())
        for member in list(self.members.values()):
            if member.is_served:
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
        return not self.is_inherited and any(one.is_served for one in self.members.values())

    @property
    def stays_open(self) -> bool:
        """Whether the training is over, but a run of it stays open for further evaluations.

        A run that a delivery is about to open counts: the next training must not meet it.
        """
        served = [member for member in self.members.values() if member.is_served]
        return not self.is_inherited and any(one.delivery.consumer.will_stay_open for one in served)

    def is_replaced_in(self, folder: RunFolder) -> bool:
        """Return whether this never ended, but its state is gone or `folder` gets a new session."""
        replaced = self._state() is None or self.folder.path.name == folder.path.name
        return self.status is None and replaced and not self.is_inherited

    def close_unused_runs(self) -> None:
        """Close the runs that stay open, without waiting, if nothing can come any more.

        After an evaluation by itself, a training may begin, which has another state.
        """
        is_gone = self._state() is None and self._has_trained
        if is_gone and self.status is not None and not self.is_inherited:
            for member in self.members.values():
                if member.is_served:
                    member.delivery.consumer.close_run()
                    member.delivery.hurry()

    def is_over(self) -> bool:
        """Return whether nothing can come any more: the state is gone and each delivery ended."""
        is_served = any(member.is_served for member in self.members.values())
        return self._state() is None and self.status is not None and not is_served

    def _calls_before_end(self) -> Iterator[Callable[[Status], None]]:
        while self._before_end:
            yield self._before_end.pop(0)

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

    def _write_logs(
        self, logs: Mapping[str, Any], step: int, epoch: float | None, summary: bool = False
    ) -> None:
        values: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        objects: dict[str, Any] = {}
        for name, value, is_listed in self._entries(logs):
            if name == "epoch":  # every log has it, and a step may have several logs
                if step == self._epoch_step:
                    continue
                self._epoch_step = step
            if name not in self._names:
                self._name_of(name, left_out)
            name, made_plain = self._names[name], plain(value)
            if is_listed:
                values[name] = REDACTED
            elif name in values:
                left_out[name] = "one log has the name twice"
            elif made_plain is None:
                large = isinstance(value, int)
                what = "too large" if large else f"a {type(value).__name__}, not a number"
                if takers := [one.name for one in self.members.values() if one.takes(value)]:
                    number = self._objects.keep(value, takers)
                    objects[name] = {"number": number, "for": takers, "what": what}
                else:
                    left_out[name] = what
            elif isinstance(made_plain, str):
                values[name] = self._redaction.of(made_plain, name)
            else:
                values[name] = made_plain
        record = {"kind": "logs", "step": step, "time": time.time(), "epoch": epoch, "logs": values}
        if left_out:
            record["left_out"] = left_out
        if objects:
            record["objects"] = objects
        if summary:
            record["summary"] = True
        self._write(record)

    def _entries(
        self, logs: Mapping[str, Any], outer: str = "", listed: bool = False
    ) -> Iterator[tuple[Any, Any, bool]]:
        """Yield name, value and whether a list of secrets names it, also for entries of dicts.

        The entry `b` of a dict that is logged as `a` has the name `a/b`.
        """
        for key, value in logs.items():
            if isinstance(value, Mapping) and value:
                is_listed = listed or self._redaction.lists(str(key))
                yield from self._entries(value, f"{outer}{key}/", is_listed)
            elif outer:
                yield f"{outer}{key}", value, listed or self._redaction.lists(str(key))
            else:
                yield key, value, False

    def _name_of(self, name: Any, left_out: dict[str, str]) -> None:
        """Choose the name under which the journal has what is logged as `name`.

        Two names may be the same as text or without their secrets: `1` and `"1"`.
        """
        text = scrubbed(str(name))
        self._names[name] = distinct_name(text, Limits(), self._names.values())
        if self._names[name] != text:
            left_out[text] = f"another value has its name, so it is recorded as {self._names[name]}"

    def _write(self, record: dict[str, Any]) -> None:
        self.begin()
        if self._journal is None:
            self._journal, self.folder = open_journal(self.folder)
        self._journal.append(record)


_SESSIONS: Final[list[Session]] = []
"""The sessions of this process, so that callbacks find them and the exit can close them."""


def last_error() -> BaseException | None:
    """Return the last uncaught error, as the interpreter or a notebook keeps it."""
    error: BaseException | None = getattr(sys, "last_value", None)
    return error


def _begin_record(args: CallbackArguments, state: TrainerState, model: Any) -> dict[str, Any]:
    config: Any = getattr(model, "config", None)
    trial = state.is_hyper_param_search
    return {
        "kind": "begin",
        "step": state.global_step,
        "time": time.time(),
        "run_name": args.run_name,
        "trial_name": state.trial_name if trial else None,
        "trial_parameters": state.trial_params if trial else None,
        "arguments": _dict_of(args),
        "model_config": _dict_of(config),
    }


def _dict_of(owner: Any) -> dict[str, Any]:
    """Return what `owner.to_dict()` returns; an empty dict if that fails."""
    try:
        found = owner.to_dict() if hasattr(owner, "to_dict") else {}
        json.dumps(found, default=str, skipkeys=True)
        return dict(found)
    except Exception:
        logger.warning("Trackers get no parameters of %s.", type(owner).__name__, exc_info=True)
        return {}


def _forget_finished_sessions(_: object = None) -> None:
    """Drop the sessions that are over. Runs too when the state of one is collected."""
    for session in _SESSIONS:
        session.close_unused_runs()
    _SESSIONS[:] = [one for one in _SESSIONS if not one.is_over()]


@atexit.register
def _close_open_sessions() -> None:
    """Close the sessions that did not end before the interpreter does."""
    for session in list(_SESSIONS):
        if not session.is_inherited:
            session.close()
