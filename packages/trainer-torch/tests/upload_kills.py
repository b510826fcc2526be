"""Kill trainings while they upload, and resume each on an empty machine.

    python packages/trainer-torch/tests/upload_kills.py [--kills 50] [--store s3]

The trainings are those of `training_to_kill.py`. They upload each checkpoint to an S3 server on
this machine, or to another directory with `--store file`. SIGKILL ends a training up to six times;
then its directory is deleted, and it is resumed from the store alone. A kill counts if a checkpoint
was on its way: complete in the directory, but not in the store. Of some, the store then has a part.
A resumption is correct if it begins at the newest checkpoint that is complete in the store. A
training is exact if it ends with the weights, the log history, the states of callbacks and the last
checkpoint of an undisturbed one, to the bit. The result is a table. The exit status is 1 if
something is not correct or not exact.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from forks import serve
from kills import Child
from stores import Directory, Store, begun, complete, s3_bucket

from trainer_torch.storage.checkpoint import list_checkpoints

KIND = "plain"


class Counts(NamedTuple):
    """What has been counted so far."""

    kills: int = 0
    kills_in_uploads: int = 0
    partial: int = 0
    resumed: int = 0
    restarted: int = 0
    correct: int = 0
    trainings: int = 0
    exact: int = 0

    def __add__(self, other: Any) -> Counts:
        return Counts(*map(sum, zip(self, other, strict=True)))

    @property
    def is_correct(self) -> bool:
        """Whether all resumptions are correct, and all trainings exact."""
        return (self.correct, self.exact) == (self.resumed + self.restarted, self.trainings)


def check(store: Store, folder: Path, kills: int, instants: random.Random) -> Counts:
    """Kill trainings so many times while they upload, and compare each with an undisturbed one."""
    undisturbed = folder / "undisturbed"
    child = Child(KIND, undisturbed, False, f"{store.address}/undisturbed")
    if child.wait():
        raise RuntimeError((undisturbed / "log").read_text("utf-8")[-2000:])
    seconds = time.monotonic() - child.began
    expected = json.loads((undisturbed / "result.json").read_text("utf-8"))
    counts = Counts()
    while counts.kills_in_uploads < kills:
        delays = [instants.uniform(0, seconds / 2) for _ in range(instants.randint(1, 6))]
        name = f"training-{counts.trainings}"
        counts += kill_and_resume(store, folder / name, name, delays, expected)
        print(counts, file=sys.stderr, flush=True)
    return counts


def kill_and_resume(
    store: Store, folder: Path, name: str, delays: list[float], expected: Any
) -> Counts:
    """Kill a training after each of `delays`, in seconds; resume it to its end, and compare it."""
    counts, status, machine = Counts(trainings=1), -signal.SIGKILL, folder / "machine"
    while status == -signal.SIGKILL:
        shutil.rmtree(machine, ignore_errors=True)
        steps = {int(one.rpartition("-")[2]) for one in complete(store, f"{name}/")}
        child = Child(KIND, machine, False, f"{store.address}/{name}")
        if counts.kills:
            is_correct = child.step == max(steps, default=0)
            counts += Counts(resumed=bool(steps), restarted=not steps, correct=is_correct)
            if not is_correct:
                print(f"{name} began at {child.step}, not at one of {steps}", file=sys.stderr)
        left = delays[counts.kills :]
        status = child.kill_after(left[0]) if left else child.wait()
        if status == -signal.SIGKILL:
            there = complete(store, f"{name}/")
            on_its_way = [one for one in list_checkpoints(machine)[-1:] if one.name not in there]
            partial = bool(on_its_way) and bool(begun(store, f"{name}/") - there)
            counts += Counts(kills=1, kills_in_uploads=bool(on_its_way), partial=partial)
    if status:
        print(f"{name}: {(machine / 'log').read_text('utf-8')[-2000:]}", file=sys.stderr)
        return counts
    result = json.loads((machine / "result.json").read_text("utf-8"))
    others = [part for part in expected if repr(result[part]) != repr(expected[part])]
    if others:
        print(f"{name}: not the same: {', '.join(others)}", file=sys.stderr)
    return counts + Counts(exact=not others)


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill trainings, and print a table. Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="kills in uploads (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the random instants (default: 0)")
    parser.add_argument("--store", choices=("s3", "file"), default="s3")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store: Store = Directory(folder / "store")
        if options.store == "s3":
            store = stack.enter_context(s3_bucket())
            serve("s3fs")  # which would take each child long to import
        counts = check(store, folder, options.kills, random.Random(options.seed))
    names = ("kills", "in uploads", "partial", "resumed", "restarted", "correct")
    print(f"| {' | '.join((*names, 'trainings', 'exact'))} |")
    print(f"|{'--:|' * len(counts)}")
    print(f"| {' | '.join(map(str, counts))} |")
    return 0 if counts.is_correct else 1


if __name__ == "__main__":
    sys.exit(main())
