"""Trainings that a SIGKILL ends, in a forked process."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._process import captured_output
from callback_contract._stored import LOSSES, Stored, log_steps, losses, wait_for
from callback_contract._violation import ContractViolation, DoesNotApply
from callback_core.tracking import TrackerCallback, replay

_FORK_TIMEOUT: Final = 60.0
"""Seconds that the forked process gets for its training."""

_STORE_TIMEOUT: Final = 3.0
"""Seconds that a tracker gets to store logs while the training continues."""

POINTS_BEFORE_CHECKPOINT: Final = (("loss", 1, LOSSES[0]), ("loss", 2, LOSSES[1]))
"""What a training logs before it saves a checkpoint."""


def kill_after_checkpoint(case: Case) -> dict[str, Any]:
    """Train two steps in a forked process, save a checkpoint, train a third step, and kill it.

    The kill waits until the store has all logs, or a few seconds.

    Returns:
        The callback's state in the checkpoint.
    """
    file = case.folder / "states.json"

    def train() -> None:
        callback = case.make()
        training = case.begin(callback)
        log_steps(training, *losses(*LOSSES[:2]), saves=True)
        training.save()
        file.write_text(json.dumps(case.states_of(callback)))
        wait_until_stored(case, *POINTS_BEFORE_CHECKPOINT)
        log_steps(training, *losses(LOSSES[2]))
        # What is stored may not be noted as sent yet. Once the last marker is stored, all else is.
        for marker in ("marker", "last_marker"):
            training.log({marker: 0.5})
            wait_until_stored(case, (marker, 3, 0.5))

    _run_and_kill(train)
    states: dict[str, Any] = json.loads(file.read_text())
    return states


def deliver_pending(case: Case) -> None:
    """Deliver what a killed training left in its journal, if the callback has a journal."""
    if isinstance(case.make(), TrackerCallback):
        try:
            with captured_output():
                replay.main([str(case.output_dir), "--patience", str(case.subject.stored_within)])
        except Exception as error:
            raise ContractViolation(f"delivering its journal failed: {error!r}") from error


def wait_until_stored(case: Case, *points: tuple[str, int, float]) -> None:
    """Wait until the store has these points (name, step, value), or for a few seconds.

    A tracker that sends in order has also recorded everything that was logged before them.
    """

    def has_all() -> bool:
        stored = Stored(case, case.readable_runs())
        return all(stored.has(*point) for point in points)

    wait_for(has_all, _STORE_TIMEOUT)


def _run_and_kill(train: Callable[[], None]) -> None:
    """Call `train` in a forked process, then kill that process."""
    if not hasattr(os, "fork"):
        raise DoesNotApply("this system cannot fork a process")
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python warns that threads do not survive a fork
        child = os.fork()
    if child == 0:
        answer = "killed"
        try:
            if (torch := sys.modules.get("torch")) is not None:
                torch.set_num_threads(1)  # torch's worker threads do not survive the fork
            train()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, answer.encode()[:4000])
            os.kill(os.getpid(), signal.SIGKILL)
    try:
        os.close(writer)
        ready, _, _ = select.select([reader], [], [], _FORK_TIMEOUT)
        answer = os.read(reader, 4000).decode(errors="replace") if ready else ""
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not answer:
        raise DoesNotApply("its training cannot run in a forked process")
    if answer != "killed":
        raise ContractViolation(f"in a forked process, its training failed: {answer}")
