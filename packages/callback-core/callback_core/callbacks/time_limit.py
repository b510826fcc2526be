"""`TimeLimit`: stops a training, with a checkpoint, before the time of its job is over."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from callback_core.arguments import (
    CallbackArguments,
    IntervalStrategy,
    evaluation_strategy,
    is_number,
)
from callback_core.callback import TrainerCallback
from callback_core.control import TrainerControl, request_stop
from callback_core.state import TrainerState

_FORM: Final = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")
_LONGEST_RESERVE: Final = 300.0
_MARGIN: Final = 1.5
"""The next one of a kind may take longer than the longest so far, by this factor."""

_IMPORTED: Final = time.monotonic()

SLURM: Final = "slurm"
"""The limit that ends with the job of Slurm."""

logger = logging.getLogger(__name__)


class TimeLimit(TrainerCallback):
    """Stops training in time before a limit, and asks for a checkpoint.

    It measures how long steps, evaluations and saves take. A save takes from the request until it
    is written, which may be during later steps. It asks for the end as soon as another step, the
    evaluation that is due after it and a checkpoint may no longer fit. The longest one of each so
    far counts, and half as much again, because the next may take longer. The first step does not
    count, because it may compile the model. A stop within an epoch does not evaluate as at the end
    of an epoch. The training that resumes there does.

    Each training has the whole limit, also one that resumes. With several processes, the first one
    that asks stops all of them, in a loop whose processes agree on the flags of the control.

    Args:
        limit: Seconds; or a `timedelta`; or a text such as `3:50:00` or `1-12:00:00`, which are
            hours, minutes and seconds, after days and a hyphen, as Slurm writes them; or `slurm`,
            which is until the time in `SLURM_JOB_END_TIME`, as Slurm sets it since version 23.02.
            Outside of a job of Slurm, there is then no limit, and a warning says so.
        since: When the time begins: with the `training`, with the `process`, or at a time in
            seconds since 1970, such as that of `SLURM_JOB_START_TIME`.
        reserve: Seconds that are left for what has not been measured: the first evaluation, the
            first save, and whatever follows the training. By default, a twentieth of the limit, but
            at most five minutes.
        clock: Returns seconds. It never goes back.

    Raises:
        ValueError: A value is none of these, or the reserve is not shorter than the limit; or with
            `slurm`, the job has no `SLURM_JOB_END_TIME`, or `since` is given too.
    """

    def __init__(
        self,
        limit: str | float | timedelta,
        *,
        since: str | float = "training",
        reserve: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if limit == SLURM:
            if since != "training":
                raise ValueError(
                    f"since is {since!r}, but the limit 'slurm' ends with the job, whenever the "
                    "time began. Leave since out."
                )
            since = time.time()
            self.limit = _left_of_slurm_job(since)
        else:
            self.limit = _seconds(limit)
        if since not in ("training", "process") and not is_number(since):
            raise ValueError(
                f"since is {since!r}, but must be 'training', 'process', or a time in seconds "
                "since 1970."
            )
        self.since = since
        self.reserve = min(self.limit / 20, _LONGEST_RESERVE) if reserve is None else reserve
        if not is_number(self.reserve) or not 0 <= self.reserve < self.limit:
            raise ValueError(
                f"reserve is {reserve!r}, but must be a number of seconds, at least 0 and below "
                f"the limit of {self.limit:g}."
            )
        self._clock = clock
        self._measured_at = self._ends_at = clock()
        self._steps = 0
        self._step = self._evaluation = self._save = 0.0  # the longest ones, in seconds
        self._evaluations = 0.0  # those since the last step
        self._epoch = self._share = 0.0  # the epochs done, and how much of one the last step was
        self._asked: dict[int, float] = {}  # when a save was asked for, by its step
        self._step_done = 0  # `on_save` may be that of an earlier step
        self._saved_step: int | None = None
        self._stopped = False

    def on_train_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to measure."""
        self._measured_at = self._clock()
        self._ends_at = self._measured_at + self.limit - self._elapsed()
        self._steps = 0
        self._step = self._evaluation = self._save = self._evaluations = 0.0
        self._epoch, self._share = state.epoch or 0.0, 0.0
        self._asked, self._step_done = {}, state.global_step
        self._saved_step, self._stopped = None, False

    def on_step_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the step, and stop if no other one fits."""
        taken = self._lap()
        # The first step stands in for the longest one until there is another.
        self._step = max(self._step, taken) if self._steps > 1 else taken
        self._steps += 1
        self._evaluations = 0.0
        epoch = state.epoch or 0.0
        self._epoch, self._share = epoch, epoch - self._epoch
        self._step_done = state.global_step
        self._note_request(state, control)
        self._stop_if_due(args, state, control)

    def on_evaluate(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the evaluation, of all datasets together."""
        self._evaluations += self._lap()
        self._evaluation = max(self._evaluation, self._evaluations)
        self._note_request(state, control)
        self._stop_if_due(args, state, control)

    def on_save(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure the save, which may have been written during later steps."""
        step = state.global_step
        began = self._asked.get(step, self._measured_at)
        self._lap()
        self._save = max(self._save, self._measured_at - began)
        # A save that was asked for since then begins only now.
        self._asked = {later: self._measured_at for later in self._asked if later > step}
        self._saved_step = step
        self._stop_if_due(args, state, control)

    def on_epoch_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After a stop of a time limit, do not evaluate, nor save the same checkpoint again."""
        self._lap()
        if self._has_stopped(control):
            control.should_evaluate = False
            if self._saved_step == state.global_step:
                control.should_save = False
        self._note_request(state, control)

    def _elapsed(self) -> float:
        """Return how many seconds of the limit are over when the training begins."""
        if self.since == "training":
            return 0.0
        return _age_of_process() if self.since == "process" else time.time() - float(self.since)

    def _lap(self) -> float:
        """Return the seconds since the last call."""
        now = self._clock()
        taken, self._measured_at = now - self._measured_at, now
        return taken

    def _note_request(self, state: TrainerState, control: TrainerControl) -> None:
        if control.should_save:
            self._asked[state.global_step] = self._measured_at
            # Before these, others have ended, even if a disk has failed and no event came.
            self._asked = dict(list(self._asked.items())[-2:])

    def _saves_left(self) -> float:
        """Return the seconds that the requested saves may still take."""
        now = self._clock()
        return sum(max(0.0, _MARGIN * self._save + asked - now) for asked in self._asked.values())

    def _stop_if_due(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl
    ) -> None:
        if self._stopped or 0 < state.max_steps <= self._step_done:
            return
        left = self._ends_at - self._clock()
        now = _MARGIN * self._evaluation * control.should_evaluate + self._saves_left()
        ahead = _MARGIN * (self._step + self._evaluation_ahead(args, state) + self._save)
        if left < now + ahead + self.reserve:
            self._stopped = True
            request_stop(
                control,
                f"{max(0.0, left):.0f} s are left of the time limit of {self.limit:g} s, and the "
                f"next step with a checkpoint may take {ahead:.0f} s",
            )
            if self._saved_step != self._step_done:
                control.should_save = True

    def _evaluation_ahead(self, args: CallbackArguments, state: TrainerState) -> float:
        """Return the seconds of the evaluation that is due after the next step, or 0."""
        step = self._step_done + 1
        is_due = False
        strategy = evaluation_strategy(args)
        if strategy == IntervalStrategy.STEPS:
            every: int = getattr(state, "eval_steps", 0) or vars(args)["eval_steps"]  # until 4.29
            is_due = step % every == 0 or step == state.max_steps
        elif strategy == IntervalStrategy.EPOCH:
            rounding = 1e-6
            is_due = math.floor(self._epoch + self._share + rounding) > math.floor(
                self._epoch + rounding
            )
        return self._evaluation if is_due else 0.0

    def _has_stopped(self, control: TrainerControl) -> bool:
        """Return whether a time limit asked for the end, in this process or another one."""
        return self._stopped or any(
            request.flag == "should_training_stop" and str(request.by).endswith(type(self).__name__)
            for request in getattr(control, "requests", ())
        )


def _left_of_slurm_job(now: float) -> float:
    """Return the seconds until this job of Slurm ends; infinity outside of a job.

    Args:
        now: The time in seconds since 1970.

    Raises:
        ValueError: There is no time in `SLURM_JOB_END_TIME`, or it is over.
    """
    ends_at = os.environ.get("SLURM_JOB_END_TIME")
    if ends_at is None and "SLURM_JOB_ID" not in os.environ:
        logger.warning(
            "TimeLimit will not stop the training: its limit is 'slurm', but this is not a job of "
            "Slurm. Write the limit out instead, such as '3:50:00'."
        )
        return math.inf
    if ends_at is None or not ends_at.isdecimal() or int(ends_at) <= now:
        raise ValueError(
            f"SLURM_JOB_END_TIME is {ends_at!r}, but must be a time in seconds since 1970 that is "
            "not over. Slurm sets it since version 23.02. Write the limit out instead, such as "
            "'3:50:00'."
        )
    return int(ends_at) - now


def _seconds(limit: object) -> float:
    """Return `limit` in seconds."""
    found: float | None = None
    if isinstance(limit, timedelta):
        found = limit.total_seconds()
    elif is_number(limit):
        found = float(limit)  # type: ignore[arg-type]
    elif isinstance(limit, str) and (match := _FORM.fullmatch(limit.strip())):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        found = float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if found is None or found <= 0:
        raise ValueError(
            f"limit is {limit!r}, but must be a number of seconds above 0, a timedelta, 'slurm', "
            "or a text such as '3:50:00' or '1-12:00:00': hours, minutes and seconds, after days "
            "and a hyphen."
        )
    return found


def _age_of_process() -> float:
    """Return the seconds since this process began; where Linux does not tell, since the import."""
    try:
        after_name = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2]
        began = int(after_name.split()[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED
