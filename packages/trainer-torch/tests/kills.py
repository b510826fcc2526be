"""Kill trainings at random instants, resume them, and compare them with undisturbed ones.

    python packages/trainer-torch/tests/kills.py [--kills 20] [--kinds plain ...] [--accelerator]

The trainings are those of `training_to_kill.py`. They save after each update step. SIGKILL ends a
training and its workers up to three times. A training is exact if it ends with the weights, the log
history, the states of callbacks and the last checkpoint of the undisturbed one, to the bit. The
result is a table. The exit status is 1 if a training is not exact.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from training_to_kill import KINDS, train

from callback_core import TrainerCallback


class Begins(TrainerCallback):
    """Tells the parent process that the training begins."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.pipe.send(None)


class Child:
    """A training in a process of its own, which leads a group of processes.

    It is forked, to save the time of the imports; but not with an accelerator, because CUDA cannot
    be used in a forked process if anything has used it before.
    """

    def __init__(self, kind: str, directory: Path, on_accelerator: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        start: Any = multiprocessing.get_context("spawn" if on_accelerator else "fork")
        receiver, sender = start.Pipe(duplex=False)
        arguments = (kind, directory, on_accelerator, sender)
        self.process = start.Process(target=train_in_group, args=arguments)
        self.process.start()
        sender.close()
        with receiver, suppress(EOFError):  # the process ends without a training
            receiver.recv()
        self.began = time.monotonic()

    def wait(self) -> int:
        """Wait for its end, and return its exit status."""
        self.process.join()
        return int(self.process.exitcode)

    def kill_after(self, seconds: float) -> int:
        """Kill it and its workers so long after its begin, and return its exit status."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.wait()


def train_in_group(kind: str, directory: Path, on_accelerator: bool, pipe: Connection) -> None:
    """Train in a new group of processes, and write to a log."""
    os.setpgid(0, 0)
    log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    train(kind, directory, Begins(pipe), on_accelerator=on_accelerator)


class Counts(NamedTuple):
    """How many trainings were killed and resumed, how often, and how many of them are exact."""

    trainings: int = 0
    kills: int = 0
    kills_in_saves: int = 0
    exact: int = 0

    def __add__(self, other: Any) -> Counts:
        return Counts(*map(sum, zip(self, other, strict=True)))


def check(kind: str, kills: int, instants: random.Random, on_accelerator: bool = False) -> Counts:
    """Kill trainings of this kind so many times, and compare each with an undisturbed one."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "whole")
        child = Child(kind, whole, on_accelerator)
        if child.wait():
            print(f"{kind}: {(whole / 'log').read_text('utf-8')[-2000:]}", file=sys.stderr)
            return Counts(1)
        seconds = time.monotonic() - child.began
        expected = json.loads((whole / "result.json").read_text("utf-8"))
        while counts.kills < kills:
            times = min(instants.randint(1, 3), kills - counts.kills)
            delays = [instants.uniform(0, seconds) for _ in range(times)]
            directory = Path(folder, f"killed-{counts.trainings}")
            counts += kill_and_resume(kind, directory, delays, expected, on_accelerator)
    return counts


def kill_and_resume(
    kind: str, directory: Path, delays: list[float], expected: Any, on_accelerator: bool
) -> Counts:
    """Kill a training after each of `delays`, in seconds; resume it to its end, and compare it."""
    kills = in_saves = 0
    status = -signal.SIGKILL
    while status == -signal.SIGKILL:
        child = Child(kind, directory, on_accelerator)
        status = child.kill_after(delays[kills]) if kills < len(delays) else child.wait()
        if status == -signal.SIGKILL:
            kills += 1
            in_saves += any(directory.glob(".checkpoint-*.part"))
    if status:
        print(f"{kind}: {(directory / 'log').read_text('utf-8')[-2000:]}", file=sys.stderr)
        return Counts(1, kills, in_saves, 0)
    result = json.loads((directory / "result.json").read_text("utf-8"))
    others = [name for name in expected if repr(result[name]) != repr(expected[name])]
    if others:
        print(f"{kind}: not the same after {kills} kills: {', '.join(others)}", file=sys.stderr)
    return Counts(1, kills, in_saves, not others)


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill trainings of each kind, and print a table. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="kills of each kind (default: 20)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--accelerator", action="store_true", help="train on the accelerator")
    parser.add_argument("--seed", type=int, default=0, help="of the random instants (default: 0)")
    options = parser.parse_args(arguments)
    # Optimizers import this, which would take each child longer than its training.
    importlib.import_module("torch._dynamo")
    instants = random.Random(options.seed)
    print("| training | kills | of them while saving | trainings | exact |")
    print("|---|--:|--:|--:|--:|", flush=True)
    is_exact = True
    for kind in options.kinds:
        counts = check(kind, options.kills, instants, options.accelerator)
        is_exact &= counts.exact == counts.trainings
        row = (kind, counts.kills, counts.kills_in_saves, counts.trainings, counts.exact)
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    return 0 if is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
