"""`TrackerCallback`: turns the events of a training into what a tracker is sent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

from callback_core.arguments import CallbackArguments
from callback_core.callback import TrainerCallback
from callback_core.control import TrainerControl
from callback_core.state import TrainerState
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery import (
    DELIVERY_KINDS,
    Delivery,
    DeliveryKind,
    InlineDelivery,
    ThreadDelivery,
)
from callback_core.tracking.recording import Recording
from callback_core.tracking.sidecar import ProcessDelivery, check_made_elsewhere
from callback_core.tracking.tracker import Status, Tracker

logger = logging.getLogger(__name__)

_Event = TypeVar("_Event", bound=Callable[..., None])


def never_raises(event: _Event) -> _Event:
    """Make an event method log what goes wrong in it, once with its traceback, and go on.

    Other handlers than ours would end the training, and ours would call it no more.
    """

    @wraps(event)
    def method(self: TrackerCallback, *args: Any, **kwargs: Any) -> None:
        try:
            event(self, *args, **kwargs)
        except Exception as error:
            if not self._has_failed:
                self._has_failed = True
                name, tracker = event.__name__, self.tracker.name
                logger.warning(
                    "Tracking for %s failed in %s. Training goes on, and so does tracking.",
                    tracker,
                    name,
                    exc_info=error,
                )

    return cast(_Event, method)


class TrackerCallback(TrainerCallback):
    """Sends a training to a tracker, on the main process of all, and never lets it wait for that.

    What is logged goes to a journal in `<output_dir>/tracking`, from which it is delivered.
    Whatever the tracker does, training goes on; what it did not take by the end stays in the
    journal, and `python -m callback_core.tracking.replay OUTPUT_DIR` delivers it.

    Args:
        tracker: Where to.
        delivery: `thread` delivers beside the training; `process` too, in a process of its own,
            which is killed when the tracker hangs, and which outlives a training that is killed;
            `inline` delivers in the training's own thread, which waits.
        open_limit: Seconds that opening the run may take before this is said, and before the end of
            training waits no longer for it; with `process`, that any call may take before the
            process is begun anew.
        flush_limit: Seconds that the end of training waits for what is not delivered yet.
        redact: Names of arguments and logs whose values are secrets, besides those that look so.

    Raises:
        ValueError: A limit is negative, there is no such delivery, or the tracker cannot be made in
            a process of its own.
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
        kind = type(self).__name__
        if delivery not in DELIVERY_KINDS:
            raise ValueError(
                f"{kind}: delivery is {delivery!r}, it must be one of: {', '.join(DELIVERY_KINDS)}."
            )
        for name, limit in (("open_limit", open_limit), ("flush_limit", flush_limit)):
            if not limit >= 0:
                raise ValueError(f"{kind}: {name} is {limit!r}, it must be seconds, 0 or more.")
        if isinstance(redact, str):
            raise ValueError(f"{kind}: redact is {redact!r}, it must be a list of names.")
        if delivery == "process":
            check_made_elsewhere(tracker)
        self.tracker = tracker
        self.delivery = delivery
        self.open_limit = open_limit
        self.flush_limit = flush_limit
        self.redact = tuple(redact)
        self._resumed: dict[str, str | None] = {}
        self._recording: Recording | None = None
        self._delivery: Delivery | None = None
        self._status: Status = "finished"
        self._has_failed = False

    def state_dict(self) -> dict[str, str | None]:
        """Return which run this is, here and in the tracker: a resumed training goes on in it."""
        run = None if self._recording is None else self._recording.folder.run
        run_id = None if self._delivery is None else self._delivery.consumer.run_id
        return {"run": run, "run_id": run_id}

    def load_state_dict(self, state: dict[str, str | None]) -> None:
        """Take over what `state_dict` returned; the training that begins next goes on in it."""
        self._resumed = dict(state)

    @never_raises
    def on_train_begin(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Take part in the recording; in a run that the user has opened, if there is one."""
        if self._recording is not None:  # where the loop before raised and did not say so
            self.end(self._recording.how_it_ended())
        if state.is_world_process_zero and not self.tracker.disabled:
            self._status, self._recording = "finished", None
            recording = Recording.of(state)
            if recording is None or recording.ended is not None:
                recording = Recording(args, state, model, self._resumed.get("run"), training=True)
            self._join(recording, state)
            self.tracker.begin()

    @never_raises
    def on_epoch_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to deliver, now that each tracker has said what is secret."""
        if self._recording is not None and not self._recording.elsewhere:
            self._recording.begin()
            self._deliver()

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
        """Write `logs` to the journal; after a training, to that of the run that has ended."""
        if not state.is_world_process_zero or logs is None or self.tracker.disabled:
            return
        recording = self._recording
        if recording is None or not recording.is_of(state):
            recording = Recording.of(state) or self._recording_in_the_middle(args, state, model)
            self._join(recording, state)
        recording.log(self, logs, state.global_step, state.epoch)
        if recording.ended is None:
            self._deliver()
        else:
            recording.end(recording.ended, state.global_step)
            self._deliver_after_the_end()

    @never_raises
    def on_save(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        checkpoint_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Write that a checkpoint was saved, and keep it where the tracker takes it."""
        recording, delivery = self._recording, self._delivery
        if recording is None or delivery is None or recording.ended or recording.elsewhere:
            return
        recording.saved(self, state.global_step)
        if self.tracker.takes_checkpoints:
            directory = checkpoint_dir or f"{args.output_dir}/checkpoint-{state.global_step}"
            recording.upload(Path(directory), state.global_step, delivery.consumer.name)
        self._deliver()

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
        """Close the run; say in a line what the tracker has not got."""
        self.end(self._status)

    def takes_part_in(self, recording: Recording) -> bool:
        """Return whether this still delivers `recording`."""
        delivery = self._delivery
        return (
            self._recording is recording
            and delivery is not None
            and not (delivery.finished or delivery.consumer.done)
        )

    def hurry(self, recording: Recording) -> None:
        """Be told that `recording` has ended: all trackers deliver while one is waited for."""
        if self.takes_part_in(recording) and self._delivery is not None and recording.ended:
            self._delivery.consumer.training_ended(recording.ended)
            self._delivery.hurry()

    @never_raises
    def end(self, status: Status) -> None:
        """End the training that goes on, if one does, and wait for the tracker to its limit."""
        recording, delivery = self._recording, self._delivery
        if recording is None or delivery is None or delivery.finished or recording.elsewhere:
            return
        if recording.ended is None:
            recording.end(status, recording.step)
        for member in recording.members.values():
            member.hurry(recording)
        self._deliver()
        delivery.finish(recording.ended_at + self.flush_limit)
        if trouble := delivery.trouble():
            logger.warning("Training was not affected, but %s.", trouble)
        self.tracker.release()

    def _recording_in_the_middle(
        self, args: CallbackArguments, state: TrainerState, model: Any
    ) -> Recording:
        """Return a new recording of what nobody has recorded so far."""
        training = state.global_step < state.max_steps
        return Recording(args, state, model, None, training=training, begins=False)

    def _join(self, recording: Recording, state: TrainerState) -> None:
        """Take part in `recording`."""
        name = recording.join(self)
        tracker, adopted = self._usable_tracker(), None
        try:
            adopted = tracker.adopt()
        except Exception as error:
            logger.warning("%s opens a run of its own.", name, exc_info=error)
        run_id = self._resumed.get("run_id") if state.global_step > 0 else None
        self._resumed = {}
        self._make_delivery(
            Consumer(tracker, recording.folder, name, adopted or run_id, adopted is not None)
        )
        self._recording = recording
        if adopted is not None and self.delivery == "process":
            logger.warning(
                "%s goes on in a run that this process has opened, so it is delivered to by a "
                "thread and not by a process of its own.",
                name,
            )

    def _make_delivery(self, consumer: Consumer) -> None:
        if self.delivery == "process" and not consumer.progress.adopted:
            self._delivery = ProcessDelivery(consumer, self.open_limit)
        elif self.delivery == "inline":
            self._delivery = InlineDelivery(consumer, self.open_limit)
        else:
            self._delivery = ThreadDelivery(consumer, self.open_limit)

    def _deliver(self) -> None:
        """Begin to deliver, or go on."""
        delivery = self._delivery
        assert delivery is not None
        if not delivery.started:
            delivery.start()
        delivery.poke()

    def _deliver_after_the_end(self) -> None:
        """Deliver what was logged since the run was closed, which opens and closes it again."""
        assert self._delivery is not None
        if self._delivery.started:
            self.end("finished")  # of an evaluation before, which nobody has waited for
            old = self._delivery.consumer
            self._make_delivery(Consumer(self._usable_tracker(), old.folder, old.name))
        self._deliver()

    def _usable_tracker(self) -> Tracker:
        """Return the tracker, made anew where it never came back from a call."""
        settings = self.tracker.settings()
        if self._delivery is not None and self._delivery.given_up and settings is not None:
            self.tracker = type(self.tracker)(**settings)
        return self.tracker
