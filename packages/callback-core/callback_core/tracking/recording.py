"""`Recording`: writes one training into its journal, for all trackers of that training."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from callback_core.arguments import CallbackArguments
from callback_core.state import TrainerState
from callback_core.tracking.folder import RunFolder
from callback_core.tracking.journal import Journal
from callback_core.tracking.redaction import Redaction
from callback_core.tracking.tracker import Status
from callback_core.tracking.values import plain

if TYPE_CHECKING:
    from callback_core.tracking.callback import TrackerCallback

logger = logging.getLogger(__name__)


class Recording:
    """Writes one training, and what is logged after it, into a journal that its trackers share.

    Each tracker's callback sees each event. Whichever comes first writes it (`events` tells), so
    that it makes no difference which of them are there.

    Args:
        args: The arguments of the training.
        state: Its state, by which its other trackers find this.
        model: Its model, of whose configuration a tracker is told.
        run: The run to go on with, as a checkpoint knows it.
        training: Whether there is a training; otherwise a value is logged without one.

    Attributes:
        folder: Where it is kept.
        members: The callbacks that take part, by the names of their trackers.
        events: How many logs and saves have been written.
        ended: How the training ended; `None` while it goes on.
        ended_at: When that was, in monotonic seconds.
    """

    def __init__(
        self,
        args: CallbackArguments,
        state: TrainerState,
        model: Any,
        run: str | None,
        training: bool,
    ) -> None:
        self.members: dict[str, TrackerCallback] = {}
        self.events = 0
        self.ended: Status | None = None if training else "finished"
        self.ended_at = time.monotonic()
        self._state = weakref.ref(state)
        self._redaction = Redaction()
        resumed = training and state.global_step > 0
        self._journal: Journal | None = None
        self._journal, self.folder = _opened(_folder(Path(args.output_dir or "."), run, resumed))
        self._begin = _begin_record(args, state, model) | {"resumed": resumed}
        self._begun = False
        self._epoch_step = state.global_step if resumed else None
        _RECORDINGS.append(self)

    @classmethod
    def of(cls, state: TrainerState) -> Recording | None:
        """Return what the training with this state is recorded in, if it is."""
        _RECORDINGS[:] = [one for one in _RECORDINGS if one._state() or not one.ended]
        return next((one for one in reversed(_RECORDINGS) if one._state() is state), None)

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
        self._begin["arguments"] = self._redaction.of(self._begin["arguments"])
        self._begin["model_config"] = self._redaction.of(self._begin["model_config"])
        self._write(self._begin)

    def log(self, logs: Mapping[str, Any], step: int, epoch: float | None) -> None:
        """Write values that were logged at a step."""
        self.events += 1
        values: dict[str, Any] = {}
        left_out: dict[str, str] = {}
        for name, value in logs.items():
            if name == "epoch":  # which is in every log, and several may be of one step
                if step == self._epoch_step:
                    continue
                self._epoch_step = step
            made_plain = plain(value)
            if made_plain is None:
                left_out[name] = type(value).__name__
            elif isinstance(made_plain, str):
                values[name] = self._redaction.of(made_plain, name)
            else:
                values[name] = made_plain
        record = {"kind": "logs", "step": step, "time": time.time(), "epoch": epoch, "logs": values}
        if left_out:
            record["left_out"] = left_out
        self._write(record)

    @property
    def step(self) -> int:
        """The update step that its training has come to, or began at where that is gone."""
        state = self._state()
        return int(self._begin["step"] if state is None else state.global_step)

    def saved(self, step: int) -> None:
        """Write that a checkpoint was saved: what follows is repeated when it is resumed from."""
        self.events += 1
        self._write({"kind": "saved", "step": step, "time": time.time()})

    def upload(self, directory: Path, step: int, tracker: str) -> None:
        """Keep `directory` for a tracker: as hard links, since it may be deleted any time."""
        name = directory.name
        kept = Path("files") / tracker / name
        target = self.folder.path / kept
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(directory, target, copy_function=_linked)
        self._write(
            {"kind": "upload", "step": step, "time": time.time(), "for": tracker}
            | {"path": str(kept), "name": name}
        )

    def end(self, status: Status, step: int) -> None:
        """Write that the training, or what was logged after it, has ended, unless that is done."""
        if self._journal is None:
            return
        self._write({"kind": "end", "step": step, "time": time.time(), "status": status})
        self.ended, self.ended_at = status, time.monotonic()
        self._journal.close()
        self._journal = None

    def _write(self, record: dict[str, Any]) -> None:
        self.begin()
        if self._journal is None:
            self._journal, self.folder = _opened(self.folder)
        self._journal.append(record)


_RECORDINGS: Final[list[Recording]] = []


def _folder(output_dir: Path, run: str | None, resumed: bool) -> RunFolder:
    """Return the folder of the run that goes on, or of a new one."""
    if not resumed:
        return RunFolder.new(output_dir)
    if run is not None:
        return RunFolder.of(output_dir, run)
    known = RunFolder.all(output_dir)  # the trainer did not keep which: the newest
    return known[-1] if known else RunFolder.new(output_dir)


def _opened(folder: RunFolder) -> tuple[Journal, RunFolder]:
    """Return the journal in `folder`, or in another where that cannot be had, and where it is."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        return Journal(folder.journal), folder
    except BlockingIOError:
        other = RunFolder.new(folder.output_dir)
        logger.warning(
            "Another training writes to %s: this one is kept in %s.", folder.path, other.path
        )
        other.path.mkdir(parents=True)
        return Journal(other.journal), other
    except OSError as error:
        other = RunFolder.of(Path(tempfile.mkdtemp(prefix="tracking-")), folder.run)
        logger.warning(
            "What trackers are sent cannot be kept in %s: %s. It is kept in %s.",
            folder.path,
            error,
            other.path,
        )
        other.path.mkdir(parents=True)
        return Journal(other.journal), other


def _begin_record(args: CallbackArguments, state: TrainerState, model: Any) -> dict[str, Any]:
    config: Any = getattr(model, "config", None)
    return {
        "kind": "begin",
        "step": state.global_step,
        "time": time.time(),
        "run_name": args.run_name,
        "trial_name": state.trial_name if state.is_hyper_param_search else None,
        "trial_parameters": state.trial_params if state.is_hyper_param_search else None,
        "arguments": args.to_dict(),
        "model_config": config.to_dict() if hasattr(config, "to_dict") else {},
    }


def _linked(source: str, target: str) -> None:
    """Make `target` the same file as `source`, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@atexit.register
def _end_what_goes_on() -> None:
    """End, when the interpreter does, the trainings that did not say how they ended."""
    error = getattr(sys, "last_value", None)
    for recording in list(_RECORDINGS):
        status: Status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        for member in recording.members.values():
            member.end(status)
