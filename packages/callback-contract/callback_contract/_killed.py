"""Trainings in a process that is killed: what they leave is all that is there."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._process import silence
from callback_contract._stored import LOSSES, Stored, in_time, log_steps, losses
from callback_contract._violation import ContractViolation, DoesNotApply
from callback_core.tracking import TrackerCallback, replay

_LONGEST: Final = 60.0
"""Seconds after which a process is given up that does not come as far as it should."""

_TIME_TO_STORE: Final = 3.0
"""Seconds in which a tracker stores what was logged while the training continues."""


BEFORE_THE_CHECKPOINT: Final = (("loss", 1, LOSSES[0]), ("loss", 2, LOSSES[1]))
"""What trainings log before they save a checkpoint."""


def killed_after_a_checkpoint(case: Case) -> dict[str, Any]:
    """Train two steps, save a checkpoint, train a third step, and be killed by SIGKILL.

    The kill comes when the store has all of it, or seconds later, in a process of its own.

    Returns:
        The callback's state, as the checkpoint has it.
    """
    kept = case.folder / "states.json"

    def train() -> None:
        callback = case.make()
        training = case.training(callback)
        training.begin()
        log_steps(training, *losses(*LOSSES[:2]))
        training.save()
        kept.write_text(json.dumps(case.states_of(callback)))
        wait_until_stored(case, *BEFORE_THE_CHECKPOINT)
        log_steps(training, *losses(LOSSES[2]))
        training.log({"marker": 0.5})
        wait_until_stored(case, ("marker", 3, 0.5))

    _killed_after(train)
    states: dict[str, Any] = json.loads(kept.read_text())
    return states


def deliver_the_rest(case: Case) -> None:
    """Deliver what a killed training has left in its journal, where the callback keeps one."""
    if isinstance(case.make(), TrackerCallback):
        try:
            with silence():
                replay.main([str(case.output_dir), "--patience", str(case.subject.stored_within)])
        except Exception as error:
            raise ContractViolation(f"what it left cannot be delivered: {error!r}") from error


def wait_until_stored(case: Case, *points: tuple[str, int, float]) -> None:
    """Wait until the store has points, each a name, a step and a value; or for seconds.

    A tracker that sends in order has noted by then that what came before them is stored.
    """

    def has_all() -> bool:
        with suppress(Exception):  # a store that cannot be read while it is written
            stored = Stored(case)
            return all(stored.has(*point) for point in points)
        return False

    in_time(has_all, _TIME_TO_STORE)


def _killed_after(train: Callable[[], None]) -> None:
    """Call `train` in a process that is forked from this one, and kill that."""
    if not hasattr(os, "fork"):
        raise DoesNotApply("no process can be forked on this system")
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that threads do not go with it
        child = os.fork()
    if child == 0:
        answer = "killed"
        try:
            if (torch := sys.modules.get("torch")) is not None:
                torch.set_num_threads(1)  # the others have not come along
            train()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, answer.encode()[:4000])
            os.kill(os.getpid(), signal.SIGKILL)
    try:
        os.close(writer)
        came, _, _ = select.select([reader], [], [], _LONGEST)
        answer = os.read(reader, 4000).decode(errors="replace") if came else ""
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not answer:
        raise DoesNotApply("its training cannot run in a forked process")
    if answer != "killed":
        raise ContractViolation(f"in a forked process, its training failed: {answer}")
