"""The cases of the tests of saving in several processes: what each process does and reports.

Run like `distributed_cases.py`.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from distributed_cases import PATIENCE, RANK, main
from resuming import EVERY_STEP
from small import trainer

from callback_core import TrainerCallback
from trainer_torch import LoopCallback, SafeTensors
from trainer_torch.storage.checkpoint import find_fault, list_checkpoints


class Sees(TrainerCallback):
    """Notes at which step it sees which save, and whether that is whole."""

    def __init__(self) -> None:
        self.step = 0
        self.seen: list[tuple[int, str, bool]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step = state.global_step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        path = Path(kwargs["checkpoint_dir"])
        self.seen.append((self.step, path.name, find_fault(path) is None))


class FullAfterASave(TrainerCallback):
    """Lets the disk of rank 0, which writes, fail once a checkpoint is whole."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if RANK == 0:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


class Broken(LoopCallback):
    """Adds a file that cannot be written."""

    def checkpoint_files(self, model: Any) -> dict[str, Any]:
        return {"broken.safetensors": SafeTensors({"a": torch.ones(2, 3).T}, {})}


class Fault(ArithmeticError):
    """Ends a training."""


class Raises(TrainerCallback):
    """Raises in the step after three, in all processes or in one."""

    def __init__(self, *ranks: int) -> None:
        self.ranks = ranks

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3 and RANK in self.ranks:
            raise Fault


class Waits:
    """Is written once a file exists. A copy of it is itself."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __deepcopy__(self, memo: Any) -> Waits:
        return self

    def __reduce__(self) -> Any:
        until = time.monotonic() + PATIENCE
        while not self.file.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        return dict, ()


class Held(LoopCallback):
    """Adds a file that is written only once another file exists: a slow disk."""

    def __init__(self, released: Path) -> None:
        self.released = released

    def checkpoint_files(self, model: Any) -> dict[str, Any]:
        return {"held.pt": Waits(self.released)}


class RaisesDuringASave(Held):
    """Raises in some ranks while the checkpoint of step 4 is still written."""

    def __init__(self, out: Path, *ranks: int) -> None:
        super().__init__(out / "raised")
        self.ranks = ranks

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4 and RANK in self.ranks:
            self.released.touch()
            raise Fault


def error_of(training: Any) -> str | None:
    try:
        training.train()
    except (Fault, RuntimeError, ValueError) as error:
        return type(error).__name__
    return None


def interrupted(out: Path, **changed: Any) -> dict[str, Any]:
    """Raise in all processes while a checkpoint is written, and return what is left of it."""
    meetings: list[float] = []
    made = trainer(out, RaisesDuringASave(out, 0, 1), save_strategy="steps", **changed)
    all_arrive = made.run.world.all_arrive
    made.run.world.all_arrive = lambda seconds: meetings.append(seconds) or all_arrive(seconds)  # type: ignore
    error = error_of(made)
    made.run.world.gather(None)  # the other process may still write
    found = sorted(path.name for path in out.glob("*checkpoint*"))
    return {"error": error, "found": found, "met": len(meetings)}


def as_nodes(out: Path, **changed: Any) -> dict[str, Any]:
    """Do the same as two machines with a disk each would."""
    before = os.environ["LOCAL_RANK"]
    os.environ["LOCAL_RANK"] = "0"
    try:
        return interrupted(out / f"node{RANK}", save_on_each_node=True, **changed)
    finally:
        os.environ["LOCAL_RANK"] = before


def meetings(out: Path) -> list[Any]:
    """Return whether the ranks meet if one comes too late, and if both come."""
    world = trainer(out, ddp_timeout=PATIENCE).run.world
    with world.watched():
        early = RANK == 1 and world.all_arrive(0.5)
        world.gather(None)  # for which rank 0 waits meanwhile
        late = RANK == 0 and world.all_arrive(0.5)
    with world.watched():
        return [early, late, world.all_arrive(PATIENCE)]


def saving(out: Path) -> dict[str, Any]:
    sees, sees_failures = Sees(), Sees()
    usual: dict[str, Any] = {"ddp_timeout": PATIENCE, "max_steps": 5}
    saved = {**EVERY_STEP, **usual, "save_async": True}
    in_flight = {**usual, "save_async": True, "save_steps": 4}
    trainer(out / "async", sees, **saved).train()
    failing = trainer(out / "full", sees_failures, FullAfterASave(), **saved)
    failing.train()
    broken = error_of(trainer(out / "broken", Broken(), **saved))
    fails = trainer(out / "fails", Raises(0, 1), save_on_exception=True, **usual)
    failed = error_of(fails)
    resumed = trainer(out / "fails", **usual)
    resumed.train(resume_from_checkpoint=True)
    whole = trainer(out / "whole", **usual)
    whole.train()
    weights = [
        [value.tolist() for value in one.model.state_dict().values()] for one in (resumed, whole)
    ]
    return {
        "seen": sees.seen,
        "failures": {
            "seen": sees_failures.seen,
            "steps": [one.step for one in failing.run.saves.failed],
            "saved": failing.run.saved_step,
            "ended": failing.state.global_step,
        },
        "broken": broken,
        "failed": [failed, [one.name for one in list_checkpoints(out / "fails")]],
        "resumed": weights[0] == weights[1],
        "interrupted": interrupted(out / "one_writer", save_on_exception=True, **in_flight),
        "meetings": meetings(out / "meetings"),
        "nodes": as_nodes(out / "nodes", **in_flight),
    }


if __name__ == "__main__":
    main({"saving": saving})
