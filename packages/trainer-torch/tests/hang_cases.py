"""Trainings whose ranks hang or die: `torchrun ... hang_cases.py CASE DIRECTORY`."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from distributed_cases import RANK, Plain
from sharding_cases import made as sharded
from small import data, trainer
from torch import nn
from torch.utils.data import Dataset

from callback_core import TrainerCallback
from trainer_torch.storage import checkpoint_writing

LIMIT = 20  # seconds; the ranks must also connect in this time, on a busy machine
FOREVER = 3600
BEGUN = "begun"  # the file of a rank that hangs, fails or dies from now on


class Does(TrainerCallback):
    """Does something in one rank when a step begins, and notes that and how the training ends."""

    def __init__(self, out: Path, rank: int, do: Callable[[], Any], step: int = 3) -> None:
        self.out, self.rank, self.do, self.step = out, rank, do, step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.rank == RANK and state.global_step == self.step:
            (self.out / BEGUN).touch()
            self.do()

    def on_exception(
        self, args: Any, state: Any, control: Any, exception: Any = None, **kwargs: Any
    ) -> None:
        (self.out / f"exception{RANK}").write_text(repr(exception))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        (self.out / f"ended{RANK}").touch()


class Sleeps(Dataset[Any]):
    """Sleeps at a sample, and notes that."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        if RANK == 1:
            (self.out / BEGUN).touch()
            time.sleep(FOREVER)
        return data(40)[index]


def locked() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def holds_the_interpreter() -> None:
    mutex = ctypes.create_string_buffer(64)
    ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    ctypes.PyDLL(None).pthread_mutex_lock(mutex)  # no signal ends it


def train(out: Path, rank: int, do: Callable[[], Any], **changed: Any) -> None:
    given = {"model": Plain(), "train_dataset": data(400)}
    changed = {"ddp_timeout": LIMIT, "per_device_train_batch_size": 2, **changed}
    trainer(
        out, Does(out, rank, do), given={**given, **changed.pop("given", {})}, **changed
    ).train()


def hangs_in_a_save(out: Path) -> None:
    """Hang in rank 1 while it writes its part of a sharded checkpoint."""
    import trainer_torch.storage.sharded_writing as writing

    write_file: Callable[..., None] = checkpoint_writing.write_file

    def hangs(path: Path, value: Any) -> None:
        if RANK == 1:
            (out / BEGUN).touch()
            time.sleep(FOREVER)
        write_file(path, value)

    writing.write_file = hangs  # type: ignore[attr-defined]
    does = Does(out, 9, kill)
    sharded(out, does, fsdp=True, save_strategy="steps", ddp_timeout=LIMIT).train()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fails() -> None:
    raise ValueError("broken on purpose")


class Beats(TrainerCallback):
    """Makes each step last, and notes in a file that it is done."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        (self.out / f"step-{attempt}-{RANK}").write_text(str(state.global_step))
        time.sleep(0.1)


def steady(out: Path) -> None:
    """Train for long enough to be disturbed from outside, and write the weights."""
    torch.manual_seed(1)
    made = trainer(
        out,
        Beats(out),
        given={"model": nn.Linear(4, 3, bias=False), "train_dataset": data(480)},
        per_device_train_batch_size=1,
        num_train_epochs=1,
        save_strategy="steps",
        save_steps=5,
        save_total_limit=2,
        ddp_timeout=LIMIT,
    )
    made.train()
    (out / f"weights{RANK}").write_text(str([one.tolist() for one in made.model.parameters()]))


CASES: dict[str, Callable[[Path], None]] = {
    "main sleeps": lambda out: train(out, 0, lambda: time.sleep(FOREVER)),
    "lock": lambda out: train(out, 1, locked),
    "holds the interpreter": lambda out: train(out, 1, holds_the_interpreter),
    "workers": lambda out: train(
        out, 9, kill, given={"train_dataset": Sleeps(out)}, dataloader_num_workers=1
    ),
    "save": hangs_in_a_save,
    "killed": lambda out: train(out, 1, kill),
    "main killed": lambda out: train(out, 0, kill),
    "fails": lambda out: train(out, 1, fails),
    "steady": steady,
    "slow": lambda out: train(out, 1, lambda: time.sleep(6), max_steps=6, ddp_timeout=120),
}

if __name__ == "__main__":
    directory = Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    CASES[sys.argv[1]](directory)
