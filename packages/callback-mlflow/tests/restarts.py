"""Kills ranks of trainings that torchrun starts again: `restarts.py [--kills N] [--ranks N]`.

Each training has `--max-restarts 3`, and is killed up to three times: one rank, at a random
instant. It must end by itself, with the weights of an undisturbed one to the bit, and with each
point once in MLflow. An attempt that ended before it saved a checkpoint is a run of its own there.
The result is a table. The exit status is 1 if a training is not exact.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from kills import Slow
from reader import Database

from callback_core import TrainerCallback
from callback_mlflow import MLflowCallback
from trainer_torch.testing import small_trainer

RESTARTS: Final = 3
PATIENCE: Final = 900  # seconds in which an attempt begins; they only end what hangs


class Begins(TrainerCallback):
    """Tells that this rank has begun the training, by a file of its process."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        attempt, rank = os.environ["TORCHELASTIC_RESTART_COUNT"], os.environ["RANK"]
        written = self.output_dir / f"pid-{attempt}-{rank}.new"
        written.write_text(str(os.getpid()))
        written.rename(written.with_suffix(""))


def train(output_dir: Path, delivery: str) -> None:
    """Train, and write the weights."""
    made = small_trainer(
        output_dir,
        MLflowCallback(experiment_name="restarts", flush_limit=60, delivery=delivery),
        Slow(0.05),
        Begins(output_dir),
        per_device_train_batch_size=2,
        num_train_epochs=20,
        eval_strategy="steps",  # "epoch" evaluates after the last checkpoint
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
        save_total_limit=2,
        ddp_timeout=60,
    )
    made.train()
    if made.is_world_process_zero():
        weights = [value.tolist() for value in made.model.state_dict().values()]
        (output_dir / "weights.json").write_text(json.dumps(weights))


class Ended(NamedTuple):
    """How a training ended.

    Attributes:
        kills: How often a rank was killed.
        seconds: How long the training took from the begin of the first attempt.
        status: The exit status.
        weights: The weights.
        points: The points of the last run in MLflow, without measured times.
        runs: The status of each run in MLflow.
    """

    kills: int
    seconds: float
    status: int
    weights: str
    points: list[tuple[str, int, float]]
    runs: list[str]


@contextmanager
def launched(output_dir: Path, ranks: int, delivery: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a training under torchrun, and end what is left of it."""
    output_dir.mkdir(parents=True)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*torchrun, "--max-restarts", str(RESTARTS), __file__, "--train", str(output_dir)]
    path = os.pathsep.join(map(os.path.abspath, (Path(__file__).parent, *sys.path)))
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{output_dir / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with (output_dir / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "--delivery", delivery],
            cwd=output_dir,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun then ends its processes
            process.wait()


def began(process: subprocess.Popen[bytes], output_dir: Path, attempt: int, ranks: int) -> bool:
    """Wait until all ranks of an attempt have begun, and return whether they have."""
    until = time.monotonic() + PATIENCE
    while len(list(output_dir.glob(f"pid-{attempt}-?"))) < ranks:
        if process.poll() is not None or time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def kill_rank(pid: int, output_dir: Path) -> bool:
    """Kill a rank of the training, unless it has ended; return whether it was killed."""
    with suppress(OSError):
        if os.fsencode(output_dir) in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def run(output_dir: Path, delays: Sequence[float], dice: random.Random, options: Any) -> Ended:
    """Train, and kill a rank so many seconds after the begin of each attempt."""
    kills = 0
    with launched(output_dir, options.ranks, options.delivery) as process:
        for delay in delays:
            if not began(process, output_dir, kills, options.ranks):
                break
            time.sleep(delay)
            victim = output_dir / f"pid-{kills}-{dice.randrange(options.ranks)}"
            kills += kill_rank(int(victim.read_text()), output_dir)
        process.wait()
    weights, begin = output_dir / "weights.json", output_dir / "pid-0-0"
    [*read] = Database(output_dir / "mlflow.db").runs("restarts")
    points = [(key, step, value) for one in read[-1:] for key, step, value, _ in one.points]
    return Ended(
        kills,
        weights.stat().st_mtime - begin.stat().st_mtime if weights.exists() else 0.0,
        process.returncode,
        weights.read_text() if weights.exists() else "",
        sorted(point for point in points if not point[0].endswith(("runtime", "_per_second"))),
        [one.status for one in read],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill ranks, and print a table. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="number of kills (default: 10)")
    parser.add_argument("--ranks", type=int, default=4, help="processes (default: 4)")
    parser.add_argument("--delivery", default="thread", choices=["thread", "process", "inline"])
    parser.add_argument("--seed", type=int, default=0, help="of the random instants (default: 0)")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        train(options.train, options.delivery)
        return 0
    dice = random.Random(options.seed)
    print("| training | kills | exit status | runs | points once | same weights |")
    print("|--:|--:|--:|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        whole = run(Path(folder, "whole"), [], dice, options)
        is_exact, left, number = whole.status == 0 and bool(whole.points), options.kills, 0
        if not is_exact:
            print((Path(folder, "whole") / "log").read_text()[-6000:], file=sys.stderr)
        while left > 0 and is_exact:
            delays = [dice.uniform(0, 0.8 * whole.seconds) for _ in range(min(RESTARTS, left))]
            output_dir = Path(folder, f"killed-{number}")
            ended = run(output_dir, delays, dice, options)
            checks = ended.points == whole.points, ended.weights == whole.weights
            left, number = left - ended.kills, number + 1
            row = (number, ended.kills, ended.status, " ".join(ended.runs), *checks)
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            is_exact &= all(checks) and ended.status == 0
            if not is_exact:
                print((output_dir / "log").read_text()[-6000:], file=sys.stderr)
    return 0 if is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
