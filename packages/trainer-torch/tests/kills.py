"""Kill trainings at random instants, resume them, and compare them with undisturbed ones.

    python packages/trainer-torch/tests/kills.py [--kills 20] [--kinds plain ...] [--accelerator]

The trainings are those of `training_to_kill.py`. They save after each update step. SIGKILL ends a
training and its workers up to three times. Of trainings with several ranks, it ends all at once, or
one of them and the others a little later. A training is exact if it ends with the weights, the log
history, the states of callbacks and the last checkpoint of the undisturbed one, to the bit. The
result is a table. The exit status is 1 if a training is not exact.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple

from forks import environments, start
from training_to_kill import KINDS, Kind, train

from callback_core import TrainerCallback
from trainer_torch.testing import At

PATIENCE: Final = 240.0  # seconds for a training to end; they only end what hangs


class Begins(TrainerCallback):
    """Tells the parent process that the training begins, and at which step."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.pipe.send(state.global_step)


class Child:
    """A training in processes of its own, which are a group.

    Args:
        kind: The name of its kind.
        directory: Where it saves, and writes what it prints to `log`.
        on_accelerator: Train on the accelerator.
        address: Where it uploads to.
        kill_at: The step after which it kills itself; 0 for never.

    Attributes:
        step: The step at which it began; `None` if it ended before that.
    """

    def __init__(
        self,
        kind: str,
        directory: Path,
        on_accelerator: bool = False,
        address: str | None = None,
        kill_at: int = 0,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        receiver, sender = Pipe(duplex=False)
        self.processes: list[Any] = []
        self.step: int | None = None
        with receiver, suppress(EOFError):  # the process ends without a training
            for environment in environments(KINDS[kind].ranks):
                group, pipe = (self.processes[0].pid, None) if self.processes else (0, sender)
                given = (KINDS[kind], directory, on_accelerator, address, kill_at)
                call = (train_in_group, group, environment, pipe, *given)
                self.processes.append(start(*call, spawns=on_accelerator))
                if pipe is not None:
                    sender.close()
                    receiver.recv()  # the group is there
            self.step = receiver.recv()
        self.began = time.monotonic()

    def wait(self, has_lost_a_rank: bool = False) -> int:
        """Wait for its end, and return its exit status.

        Args:
            has_lost_a_rank: One process was killed, so that errors of the others are no fault.
        """
        ends_at = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(0.0, ends_at - time.monotonic()))
        if any(process.exitcode is None for process in self.processes):
            self._kill()
            for process in self.processes:
                process.join()
            print("a training has hung, and was killed", file=sys.stderr)
            return 1
        statuses = [int(process.exitcode) for process in self.processes]
        if -signal.SIGKILL in statuses and (has_lost_a_rank or max(statuses) <= 0):
            return -signal.SIGKILL
        return max(statuses) or min(statuses)

    def kill_after(self, seconds: float, rank: int | None = None, pause: float = 0.0) -> int:
        """Kill it and its workers so long after its begin, and return its exit status.

        Args:
            seconds: The time.
            rank: The rank that is killed first, if they are not killed all at once.
            pause: The time from then until the others are killed.
        """
        time.sleep(max(0.0, self.began + seconds - time.monotonic()))
        if rank is not None:
            self.processes[rank].kill()
            time.sleep(pause)
        self._kill()
        return self.wait(has_lost_a_rank=rank is not None)

    def _kill(self) -> None:
        """Kill its processes, and their workers."""
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(self.processes[0].pid, signal.SIGKILL)


def train_in_group(
    group: int,
    environment: Mapping[str, str],
    pipe: Connection | None,
    kind: Kind,
    directory: Path,
    on_accelerator: bool,
    address: str | None,
    kill_at: int,
) -> None:
    """Train in a group of processes, or in a new one, and write to a log."""
    os.setpgid(0, group)
    os.environ.update(environment)
    log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    callbacks: list[TrainerCallback] = [At(kill_at, lambda: os.killpg(0, signal.SIGKILL))]
    if pipe is not None:
        pipe.send(os.getpid())
        callbacks.append(Begins(pipe))
    train(kind, directory, *callbacks, on_accelerator=on_accelerator, address=address)


class Counts(NamedTuple):
    """How many trainings were killed and resumed, how often, and how many of them are exact."""

    trainings: int = 0
    kills: int = 0
    kills_in_saves: int = 0
    exact: int = 0

    def __add__(self, other: Any) -> Counts:
        return Counts(*map(sum, zip(self, other, strict=True)))


class Kill(NamedTuple):
    """A kill: its time in seconds, and the rank that it ends that long before the others."""

    seconds: float
    rank: int | None = None
    pause: float = 0.0


def draw(instants: random.Random, seconds: float, ranks: int) -> Kill:
    """Return a kill at a random instant. Half of those of several ranks end one of them first."""
    instant = instants.uniform(0, seconds)
    if ranks == 1 or instants.random() < 0.5:
        return Kill(instant)
    return Kill(instant, instants.randrange(ranks), instants.uniform(0, seconds / 10))


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
            drawn = [draw(instants, seconds, KINDS[kind].ranks) for _ in range(times)]
            directory = Path(folder, f"killed-{counts.trainings}")
            counts += kill_and_resume(kind, directory, drawn, expected, on_accelerator)
    return counts


def kill_and_resume(
    kind: str, directory: Path, drawn: list[Kill], expected: Any, on_accelerator: bool
) -> Counts:
    """Kill a training so many times; resume it to its end, and compare it."""
    kills = in_saves = 0
    status = -signal.SIGKILL
    while status == -signal.SIGKILL:
        child = Child(kind, directory, on_accelerator)
        status = child.kill_after(*drawn[kills]) if kills < len(drawn) else child.wait()
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
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="default: all")
    parser.add_argument(
        "--accelerator",
        action="store_true",
        help="train on the accelerator; by default, the kinds with one process only",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random instants (default: 0)")
    options = parser.parse_args(arguments)
    instants = random.Random(options.seed)
    print("| training | kills | kills while saving | trainings | exact |")
    print("|---|--:|--:|--:|--:|", flush=True)
    is_exact = True
    usual = [one for one in KINDS if KINDS[one].ranks == 1 or not options.accelerator]
    for kind in options.kinds or usual:
        counts = check(kind, options.kills, instants, options.accelerator)
        is_exact &= counts.exact == counts.trainings
        row = (kind, counts.kills, counts.kills_in_saves, counts.trainings, counts.exact)
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    return 0 if is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
