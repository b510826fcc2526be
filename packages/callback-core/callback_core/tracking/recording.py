"""`Recording`: writes one training into its journal, for all trackers of that training."""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from callback_core.arguments import CallbackArguments
from callback_core.state import TrainerState
from callback_core.tracking.folder import RunFolder
from callback_core.tracking.links import linked_copy
from callback_core.tracking.place import folder_of_run, opened_journal, say_what_is_pending
from callback_core.tracking.redaction import Redaction, scrubbed
from callback_core.tracking.tracker import Status
from callback_core.tracking.values import plain

if TYPE_CHECKING:
    from callback_core.tracking.callback import TrackerCallback
    from callback_core.tracking.journal import Journal

logger = logging.getLogger(__name__)


class Recording:
    """Writes one training, and what is logged after it, into a journal that its trackers share.

    Each tracker's callback sees each event. Whichever comes first writes it, so that it makes no
    difference which of them are there.

    Args:
        args: The arguments of the training.
        state: Its state, by which its other trackers find this.
        model: Its model, of whose configuration a tracker is told.
        run: The run to go on with, as a checkpoint knows it.
        training: Whether there is a training; otherwise a value is logged without one.
        begins: Whether it begins now, or goes on from a checkpoint. Otherwise it is in its middle.

    Attributes:
        folder: Where it is kept.
        members: The callbacks that take part, by the names of their trackers.
        ending: How the training is about to end, for what `before_end` was given to know.
        ended: How the training ended; `None` while it goes on.
        ended_at: When that was, in monotonic seconds.
        elsewhere: Whether it belongs to the process that this one was forked from.
    """

    def __init__(
        self,
        args: CallbackArguments,
        state: TrainerState,
        model: Any,
        run: str | None,
        training: bool,
        begins: bool = True,
    ) -> None:
        self.members: dict[str, TrackerCallback] = {}
        self.ending: Status | None = None
        self.ended: Status | None = None if training else "finished"
        self.ended_at = time.monotonic()
        self._state = weakref.ref(state, _forget_what_is_over)
        self.elsewhere = False
        self._redaction = Redaction()
        self._names: dict[Any, str] = {}  # of logs, without what looks like a secret
        self._begins = begins
        self._error_before = last_error()
        self._event: tuple[int, tuple[str, ...]] = (-1, ())
        self._seen_by: set[TrackerCallback] = set()
        self._before_end: list[Callable[[], None]] = []
        resumed = training and begins and state.global_step > 0
        folder = folder_of_run(Path(args.output_dir or "."), run, resumed)
        for other in [one for one in _RECORDINGS if one.is_replaced_in(folder)]:
            other.end_members()
        self._journal: Journal | None = None
        self._journal, self.folder = opened_journal(folder)
        self._begin = _begin_record(args, state, model) | {"resumed": resumed}
        self._begun = False
        self._epoch_step = state.global_step if resumed else None
        _RECORDINGS.append(self)
        with suppress(OSError):
            say_what_is_pending(folder.output_dir, but=self.folder)

    @classmethod
    def of(cls, state: TrainerState) -> Recording | None:
        """Return what the training with this state is recorded in, if it is."""
        _forget_what_is_over()
        return next((one for one in reversed(_RECORDINGS) if one.is_of(state)), None)

    def _is_alive(self) -> bool:
        members = self.members.values()
        return not self.ended or any(member.takes_part_in(self) for member in members)

    def is_of(self, state: TrainerState) -> bool:
        """Return whether it records the training with this state."""
        return self._state() is state and not self.elsewhere

    def is_replaced_in(self, folder: RunFolder) -> bool:
        """Return whether it goes on but is dead, since another one begins in `folder`."""
        return self.ended is None and (
            self._state() is None or self.folder.path.name == folder.path.name
        )

    def join(self, member: TrackerCallback) -> str:
        """Take part, and return under which name. What `redact` names is a secret for all."""
        self._redaction.extend(member.redact)
        name, number = member.tracker.name, 2
        while name in self.members:
            name, number = f"{member.tracker.name}-{number}", number + 1
        self.members[name] = member
        return name

    def begin(self) -> None:
        """Write that the training begins, unless that is done."""
        if self._begun:
            return
        self._begun = True
        self._begin = self._redaction.of(self._begin)
        self._write(self._begin)

    def log(
        self, member: TrackerCallback, logs: Mapping[str, Any], step: int, epoch: float | None
    ) -> None:
        """Write values that were logged at a step, unless another member has."""
        if not self._is_new_to(member, step, logs):
            return
        values: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        for name, value in logs.items():
            if name == "epoch":  # which is in every log, and several may be of one step
                if step == self._epoch_step:
                    continue
                self._epoch_step = step
            name, made_plain = self._names.get(name) or self._name_of(name), plain(value)
            if made_plain is None:
                large = isinstance(value, int)
                left_out[name] = "too large" if large else f"a {type(value).__name__}, not a number"
            elif isinstance(made_plain, str):
                values[name] = self._redaction.of(made_plain, name)
            else:
                values[name] = made_plain
        record = {"kind": "logs", "step": step, "time": time.time(), "epoch": epoch, "logs": values}
        if left_out:
            record["left_out"] = left_out
        self._write(record)

    def _name_of(self, name: Any) -> str:
        """Return the name under which what is logged as `name` is written."""
        self._names[name] = scrubbed(str(name))
        return self._names[name]

    @property
    def step(self) -> int:
        """The update step that its training has come to, or began at where that is gone."""
        state = self._state()
        return int(self._begin["step"] if state is None else state.global_step)

    def saved(self, member: TrackerCallback, step: int) -> None:
        """Write that a checkpoint was saved: what follows is repeated when it is resumed from."""
        if self._is_new_to(member, step, ("saved",)):
            self._write({"kind": "saved", "step": step, "time": time.time()})
            if self._journal is not None:
                self._journal.sync()

    def upload(self, directory: Path, step: int, tracker: str, name: str | None = None) -> None:
        """Keep `directory` for a tracker: as hard links, since it may be deleted any time.

        The tracker is told its name, or `name` instead.
        """
        name = name or directory.name
        kept = Path("files") / tracker / name
        number = 1
        while (self.folder.path / kept).exists():  # saved before, and not sent yet
            number += 1
            kept = kept.with_name(f"{name}.{number}")
        linked_copy(directory, self.folder.path / kept)
        self._write(
            {"kind": "upload", "step": step, "time": time.time(), "for": tracker}
            | {"path": str(kept), "name": name}
        )

    def before_end(self, call: Callable[[], None]) -> None:
        """Have `call` called once, right before it is written that the training has ended."""
        self._before_end.append(call)

    def end(self, status: Status, step: int) -> None:
        """Write that the training, or what was logged after it, has ended, unless that is done."""
        if self._journal is None:
            return
        self.ending = status
        while self._before_end:
            try:
                self._before_end.pop(0)()
            except Exception:
                logger.warning("What was to be logged at the end is missing.", exc_info=True)
        self._write({"kind": "end", "step": step, "time": time.time(), "status": status})
        self.ended, self.ended_at = status, time.monotonic()
        self._journal.close()
        self._journal = None

    def _is_new_to(self, member: TrackerCallback, step: int, names: Collection[str]) -> bool:
        """Return whether `member` is the first to see an event.

        A member sees each event once, and the others may have changed what it sees of it.
        """
        if member not in self._seen_by and step == self._event[0]:
            shared = [name for name in self._event[1] if name in names]
            if shared and shared != ["epoch"]:
                self._seen_by.add(member)
                return False
        self._event = step, tuple(names)
        self._seen_by = {member}
        return True

    def end_members(self) -> None:
        """End it for all that take part, where nobody has said how it ended."""
        status = self.ended or self.how_it_ended()
        self.end(status, self.step)
        for member in list(self.members.values()):
            if member.takes_part_in(self):
                member.end(status)

    def how_it_ended(self) -> Status:
        """Return how a training has ended that did not say so: its loop raised."""
        error = last_error()
        if error is self._error_before:
            error = None
        if isinstance(error, KeyboardInterrupt):
            return "interrupted"
        return "failed" if self._begins or error is not None else "finished"

    def _write(self, record: dict[str, Any]) -> None:
        self.begin()
        if self._journal is None:
            self._journal, self.folder = opened_journal(self.folder)
        self._journal.append(record)


_RECORDINGS: Final[list[Recording]] = []


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
    """Return the parameters of `owner` by their names; none where it cannot say them."""
    try:
        found = owner.to_dict() if hasattr(owner, "to_dict") else {}
        json.dumps(found, default=str, skipkeys=True)
        return dict(found)
    except Exception:
        logger.warning("Trackers get no parameters of %s.", type(owner).__name__, exc_info=True)
        return {}


def last_error() -> BaseException | None:
    """Return the last error that nobody caught, as the interpreter or a notebook notes it."""
    error: BaseException | None = getattr(sys, "last_value", None)
    return error


def _forget_what_is_over(_: object = None) -> None:
    """Let go of trainings that are over; also called as soon as nobody has the state of one."""
    _RECORDINGS[:] = [one for one in _RECORDINGS if one._state() or one._is_alive()]


@atexit.register
def _end_what_goes_on() -> None:
    """End, when the interpreter does, the trainings that did not say how they ended."""
    for recording in list(_RECORDINGS):
        recording.end_members()


def _forget() -> None:
    """Leave the trainings of the process that this one was forked from alone."""
    for recording in _RECORDINGS:
        recording.elsewhere = True
    _RECORDINGS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
