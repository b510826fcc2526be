"""`TrackerCallback`: passes the events of a training on to the session that delivers them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from copy import copy
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from callback_core.arguments import CallbackArguments
from callback_core.callback import TrainerCallback
from callback_core.checkpoint_paths import saved_checkpoint
from callback_core.control import TrainerControl
from callback_core.state import TrainerState
from callback_core.tracking.delivery.base import DeliveryKind
from callback_core.tracking.identity import check_identity
from callback_core.tracking.member import DeliveryOptions, Member
from callback_core.tracking.run_folder import NO_CHECKPOINT, RunOfCheckpoint
from callback_core.tracking.sdk import check_sdk
from callback_core.tracking.session import Session
from callback_core.tracking.sessions import continue_session, session_of, start_session
from callback_core.tracking.tracker import AbsentTracker, Status, Tracker, check_methods
from callback_core.transformers_trainer import recorded_twice_by, tell_of_errors

logger = logging.getLogger(__name__)

_Event = TypeVar("_Event", bound=Callable[..., None])


def never_raises(event: _Event) -> _Event:
    """Make an event method log its first error with the traceback, instead of raising any.

    Handlers other than ours would end the training, and ours would stop calling the callback.
    """

    @wraps(event)
    def method(self: TrackerCallback, *args: Any, **kwargs: Any) -> None:
        try:
            event(self, *args, **kwargs)
        except Exception as error:
            if not self._has_failed:
                self._has_failed = True
                logger.warning(
                    "Tracking for %s failed in %s. Training continues, and so does tracking.",
                    self.tracker.name,
                    event.__name__,
                    exc_info=error,
                )

    return cast(_Event, method)


class TrackerCallback(TrainerCallback):
    """Sends a training to a tracker, from the main process, without making it wait.

    The logs go to a journal in `<output_dir>/tracking`, from which they are delivered. Training
    continues whatever the tracker does. What the tracker has not taken by the end stays in the
    journal, and `python -m callback_core.tracking.replay OUTPUT_DIR` delivers it.

    Args:
        tracker: The tracker.
        delivery: `thread` delivers in a thread beside the training. `process` delivers in a process
            of its own, which is killed when the tracker hangs, and which outlives a training that
            is killed. `inline` delivers in the training's own thread, which waits.
        open_limit: Seconds that opening the run may take before a warning, and before the end of
            training stops waiting for it. With `process`, also the seconds that any call except an
            upload may take before the process is started again.
        flush_limit: Seconds that the end of training waits for what is not delivered yet.
        redact: Names of arguments and logs whose values are secrets, besides those that are
            recognized as secrets anyway.

    Attributes:
        session: The session in which this callback takes part, or took part last; `None` before the
            first training, and in processes other than the main one.
        checkpoint: The last checkpoint of this training, if it saved one.

    Raises:
        ModuleNotFoundError: The tracker's SDK is not installed. A tracker that is switched off
            needs none.
        TypeError: The tracker lacks a method that each tracker needs.
        ValueError: A limit is negative, `delivery` is none of the three, or another process cannot
            make the tracker.
    """

    on_error = "isolate"

    def __init__(
        self,
        tracker: Tracker,
        *,
        delivery: DeliveryKind = "thread",
        open_limit: float = 60.0,
        flush_limit: float = 30.0,
        redact: Iterable[str] = (),
    ) -> None:
        try:
            self.options = DeliveryOptions(delivery, open_limit, flush_limit, redact)
        except ValueError as error:
            raise ValueError(f"{type(self).__name__}: {error}") from None
        if not tracker.disabled:
            check_methods(tracker)
            for module, install in tracker.requires.items():
                check_sdk(module, install=install, needed_by=type(self).__name__)
        if delivery == "process":
            check_identity(tracker)
        tell_of_errors()  # also for a callback that is added to a trainer later
        self.tracker = tracker
        self.session: Session | None = None
        self.member: Member | None = None
        self.checkpoint: Path | None = None
        self._resumed = NO_CHECKPOINT
        self._status: Status = "finished"
        self._has_failed = False
        self._is_recorded_elsewhere = False  # by the original of this copy

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy: it takes part in no training before one begins with it."""
        records = self.session is not None and self.session.status is None
        return self.__dict__ | {
            "tracker": copy(self.tracker),
            **dict.fromkeys(("session", "member", "checkpoint")),
            "_status": "finished",
            "_has_failed": False,
            "_is_recorded_elsewhere": records or self._is_recorded_elsewhere,
        }

    def state_dict(self) -> dict[str, str | None]:
        """Return where the run is, here and in the tracker, for a resumed training."""
        folder = None if self.session is None else self.session.folder
        return RunOfCheckpoint(
            run=None if folder is None else folder.run,
            output_dir=None if folder is None else str(folder.output_dir),
            run_id=self.run_id,
        )._asdict()

    @property
    def run_id(self) -> str | None:
        """The id of the run in the tracker; `None` as long as it is not open."""
        return None if self.member is None else self.member.run_id

    @property
    def run_url(self) -> str | None:
        """The address of the run's page; `None` if it has none, or as long as it is not open."""
        return None if self.member is None else self.member.run_url

    def load_state_dict(self, state: dict[str, str | None]) -> None:
        """Continue the run of `state_dict` in the training that begins next."""
        known = {name: state.get(name) for name in RunOfCheckpoint._fields}
        self._resumed = RunOfCheckpoint(**known)

    @never_raises
    def on_train_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        *,
        checkpoint_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Join the session of the training; the first tracker opens it."""
        self._is_recorded_elsewhere = False
        if state.global_step == 0 and checkpoint_dir is None:  # it begins from nothing
            self._resumed = NO_CHECKPOINT
        if name := recorded_twice_by(self, control):
            logger.warning(
                "The Trainer has transformers' own %s too, so everything is recorded twice. Set "
                'report_to="none".',
                name,
            )
        before, session = self.session, session_of(state)
        if (
            before is not None
            and session in (None, before)
            and not self.tracker.disabled
            and before.can_continue_with(args, state)
        ):
            continue_session(before, args, state, model)
            self._rejoin(before)
            return
        if before is not None and not before.is_inherited:
            before.close()  # the loop before may have raised without an event
        if isinstance(self.tracker, AbsentTracker) and state.is_world_process_zero:
            logger.warning(
                "%s is a copy, and %s got an object that only the original has. This training is "
                "not recorded there. Make the callback where the training runs.",
                type(self).__name__,
                self.tracker.name,
            )
        if state.is_world_process_zero and not self.tracker.disabled:
            self._status, self.session, self.checkpoint = "finished", None, None
            if session is None or session.status is not None:
                session = start_session(args, state, model, checkpoint=self._resumed)
            self._join(session, state)
            self.tracker.begin()

    @never_raises
    def on_epoch_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start to deliver, now that each tracker has named its secrets.

        If the program may add to the run with the SDK's own calls, wait a short while for the run.
        """
        if self.session is not None and self.member is not None and not self.session.is_inherited:
            self.session.begin()
            self.session.deliver(self.member)
            self.member.wait_for_run()

    @never_raises
    def on_log(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Record `logs`. After the training, they go to the run that has ended."""
        if not state.is_world_process_zero or logs is None or self.tracker.disabled:
            return
        if self._is_recorded_elsewhere:
            return
        session, member = self.session, self.member
        if session is None or member is None or not session.is_of(state):
            session = session_of(state)
            if session is None:  # nobody has recorded this training so far
                training = state.global_step < state.max_steps
                session = start_session(args, state, model, training=training, begins=False)
            member = self._join(session, state)
        session.record_logs(member, logs, state.global_step, state.epoch)
        session.deliver(member)
        self.tracker = member.tracker

    def on_predict(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Record the metrics of a prediction, which trainers do not log."""
        self.on_log(args, state, control, logs=metrics, **kwargs)

    @never_raises
    def on_save(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        checkpoint_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Record that a checkpoint was saved, and keep it for a tracker that takes checkpoints."""
        session, member = self.session, self.member
        if session is None or member is None or session.status or session.is_inherited:
            return
        session.record_save(member, state.global_step)
        self.checkpoint = saved_checkpoint(args, state, checkpoint_dir)
        if self.tracker.takes_checkpoints:
            if self.checkpoint is None:
                raise FileNotFoundError(
                    f"{args.output_dir} has no checkpoint of this trial at step "
                    f"{state.global_step}, so {member.name} does not get it."
                )
            session.keep(member, self.checkpoint, state.global_step)
        session.deliver(member)

    def on_exception(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        exception: BaseException | None = None,
        **kwargs: Any,
    ) -> None:
        """Note how the training ends."""
        self._status = "failed" if isinstance(exception, Exception) else "interrupted"

    @never_raises
    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the run, and report in one line what the tracker lacks."""
        session, member = self.session, self.member
        if session is None or member is None or session.is_inherited:
            return
        if not member.delivery.has_ended:
            session.end(session.status or self._status)
            session.finish(member)

    def _rejoin(self, session: Session) -> None:
        assert self.member is not None
        self._status, self._resumed = "finished", NO_CHECKPOINT
        session.rejoin(self.member)
        self.tracker = self.member.tracker
        self.tracker.begin()

    def _join(self, session: Session, state: TrainerState) -> Member:
        checkpoint, self._resumed = self._resumed, NO_CHECKPOINT
        if self.member is not None:
            self.tracker = self.member.usable_tracker()
        self.session, self.member = session, session.join(self.tracker, self.options, checkpoint)
        return self.member
