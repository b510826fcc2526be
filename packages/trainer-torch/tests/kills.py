"""Kill trainings at random instants, resume them, and compare them with undisturbed ones.

    python packages/trainer-torch/tests/kills.py [--kills 20] [--kinds plain ...] [--accelerator]

The trainings are those of `training_to_kill.py`. They save after each update step. SIGKILL ends a
training and its workers up to three times. A training is exact if it ends with the weights, the log
history, the states of callbacks and the last checkpoint of the undisturbed one, to the bit. The
result is a table. The exit status is 1 if a training is not exact.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import training_to_kill
from training_to_kill import KINDS, train

from callback_core import TrainerCallback


class Begins(TrainerCallback):
    """Tells the parent process that the training begins."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        os.write(self.pipe, b"1")


class Child:
    """A training in a process of its own. It is forked, to save the time of the imports."""

    def __init__(self, kind: str, directory: Path, on_accelerator: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._train(kind, directory, on_accelerator, writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            pipe.read(1)  # returns nothing if the process ends without a training
        self.began = time.monotonic()

    def _train(self, kind: str, directory: Path, on_accelerator: bool, pipe: int) -> None:
        code = 1
        try:
            os.setpgid(0, 0)
            os.dup2(os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            os.dup2(1, 2)
            train(kind, directory, Begins(pipe), on_accelerator=on_accelerator)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def wait(self) -> int:
        """Wait for its end, and return its exit status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill_after(self, seconds: float) -> int:
        """Kill it and its workers so long after its begin, and return its exit status."""
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))
        os.killpg(self.pid, signal.SIGKILL)  # changes nothing if it has ended
        return self.wait()


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
        if on_accelerator:
            Child(kind, whole, on_accelerator).wait()
        else:  # with other hashes of strings than the forked ones
            script = [sys.executable, training_to_kill.__file__, kind, str(whole), "0"]
            subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
        expected = json.loads((whole / "result.json").read_text("utf-8"))
        child = Child(kind, Path(folder, "timed"), on_accelerator)
        child.wait()
        seconds = time.monotonic() - child.began
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
