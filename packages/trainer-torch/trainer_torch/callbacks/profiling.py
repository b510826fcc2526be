"""`ProfilerCallback`: records some update steps with torch's profiler."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final

import torch
from torch import profiler

from callback_core import TrainerCallback, TrainerControl, TrainerState, output_directory
from callback_core.tracking import Tracker, session_of

logger = logging.getLogger(__name__)


_RUNNING: Final[list[Any]] = []
"""The profiler that runs, if one does."""


class ProfilerCallback(TrainerCallback):
    """Records some update steps with torch's profiler, as a trace that Perfetto opens.

    Each cycle waits, warms up the profiler and records. Its trace is a file
    `profile/steps-FIRST-LAST-rankRANK.json` in `output_dir`, in Chrome's format. Each tracker that
    keeps files gets it. A training that ends within a cycle leaves the trace of the steps recorded
    until then. One that fails leaves only the traces of complete cycles. Outside of a cycle,
    nothing is measured. While the program runs a profiler itself, no cycle begins.

    Open a trace at https://ui.perfetto.dev, which does not upload it.

    Args:
        wait: The steps before each cycle. The first steps are slow, and not what you look for.
        warmup: The steps in which the profiler runs and records nothing, because its start is slow.
        active: The steps to record.
        repeat: The number of cycles. 0 repeats until the training ends.
        all_ranks: Whether each process records, not only the main one.
        options: The options of `torch.profiler.profile`, such as `record_shapes`,
            `profile_memory`, `with_stack` and `activities`.

    Attributes:
        traces: The files that this training has written so far.

    Raises:
        TypeError: An option is one that the callback sets itself.
        ValueError: A number of steps is too small.
    """

    def __init__(
        self,
        wait: int = 10,
        warmup: int = 2,
        active: int = 3,
        repeat: int = 1,
        *,
        all_ranks: bool = False,
        **options: Any,
    ) -> None:
        for name, value, least in (
            ("wait", wait, 0),
            ("warmup", warmup, 0),
            ("active", active, 1),
            ("repeat", repeat, 0),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"{name} is {value!r}, but must be a whole number of at least {least}."
                )
        if own := {"schedule", "on_trace_ready"} & options.keys():
            raise TypeError(
                f"ProfilerCallback sets {', '.join(sorted(own))} itself: use wait, warmup, active "
                "and repeat."
            )
        self.wait, self.warmup, self.active, self.repeat = wait, warmup, active, repeat
        self.all_ranks, self.options = all_ranks, options
        self.traces: list[Path] = []
        self._profile: Any = None
        self._steps = self._cycles = 0  # steps since the begin of this part of a cycle
        self._is_on = self._has_failed = self._has_waited = False

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which does not take part in the training."""
        return {**self.__dict__, "_profile": None, "_is_on": False, "traces": []}

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to count steps."""
        self._discard()
        self.traces = []
        self._steps = self._cycles = 0
        self._has_failed = self._has_waited = False
        self._is_on = self.all_ranks or state.is_world_process_zero
        session = session_of(state) if self._is_on else None
        if session is not None:  # it ends before on_train_end reaches this callback
            session.before_end(
                lambda status: self._end(args, state) if status == "finished" else self._discard()
            )

    def on_step_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the profiler, if a cycle begins."""
        is_due = self._is_on and self._profile is None and self._steps >= self.wait
        if is_due and (self.repeat == 0 or self._cycles < self.repeat) and self._may_start():
            # A profiler for each cycle: one that waits costs something at each step.
            active = profiler.schedule(wait=0, warmup=self.warmup, active=self.active, repeat=1)
            self._profile = profiler.profile(schedule=active, **self.options)
            self._profile.start()
            _RUNNING.append(self._profile)
            self._steps = 0

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count the step, and write the trace if the cycle ends."""
        self._steps += 1
        if self._profile is None:
            return
        if self._steps < self.warmup + self.active:
            self._profile.step()
        else:
            self._end(args, state)
            self._cycles += 1
            self._steps = 0

    def on_exception(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the profiler without a trace."""
        self._discard()

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write what was recorded so far; say so if that is nothing."""
        self._end(args, state)
        if self._is_on and not self.traces and not self._has_failed:
            logger.warning(
                "ProfilerCallback recorded nothing, because the training had fewer than %d steps: "
                "those to wait and to warm up, and one to record.",
                self.wait + self.warmup + 1,
            )
        self._is_on = False

    def _may_start(self) -> bool:
        """Return whether no profiler of the program runs. Torch crashes if a process runs two.

        One that another callback has left running is stopped: its training may have died.
        """
        for other in list(_RUNNING):
            logger.warning(
                "ProfilerCallback stops the one of another training in this process, which gets no "
                "trace of these steps."
            )
            _stop(other)
        # Torch has no public way to ask.
        is_free = not torch.autograd._profiler_enabled()  # type: ignore[attr-defined]  # noqa: SLF001
        if not is_free and not self._has_waited:
            self._has_waited = True
            logger.warning("ProfilerCallback waits, because the program runs a profiler itself.")
        return is_free

    def _discard(self) -> None:
        """Stop the profiler, if it runs, and drop what it has recorded."""
        running, self._profile = self._profile, None
        self._has_failed = True
        _stop(running)

    def _end(self, args: Any, state: TrainerState) -> None:
        """Stop the profiler, if it runs, and write and send what it has recorded."""
        running, self._profile = self._profile, None
        if running is None or not _stop(running):
            return
        recorded = self._steps - self.warmup
        if recorded <= 0:
            return
        rank = torch.distributed.get_rank() if _is_distributed() else 0
        first = state.global_step - recorded + 1
        name = f"steps-{first}-{state.global_step}-rank{rank}"
        directory = Path(output_directory(args)) / "profile"
        directory.mkdir(parents=True, exist_ok=True)
        trace, part = directory / f"{name}.json", directory / f".{name}.part.json"
        try:
            running.export_chrome_trace(str(part))
            os.replace(part, trace)
        finally:
            part.unlink(missing_ok=True)
        self.traces.append(trace)
        logger.info("A trace of the steps %d to %d is in %s.", first, state.global_step, trace)
        _send(state, directory)


def _send(state: TrainerState, directory: Path) -> None:
    """Give `directory` to each tracker that keeps files."""
    session = session_of(state)
    if session is None or session.is_inherited:
        return
    for member in session.members.values():
        if type(member.tracker).log_files is not Tracker.log_files:
            session.keep(member, directory, state.global_step)
            if session.status is None:
                session.deliver(member)


def _stop(running: Any) -> bool:
    """Stop the profiler, and return whether it still ran."""
    if running not in _RUNNING:
        return False
    _RUNNING.remove(running)
    running.stop()
    return True


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
