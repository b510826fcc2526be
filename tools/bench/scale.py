"""Estimate what the start, saves, resumes and logs cost with many ranks and large models.

    python tools/bench/scale.py [--storage GB/s] [--disk GB/s] [--hop µs] [--step S] [--quick]

We have no cluster of 1,024 ranks, so this is a model. It measures its parts here: how
fast one core hashes and copies, how large what a rank reports is, and how the times of a reduction
and of making a process group grow with the ranks. What a cluster decides can be set: the rate of
the storage that all ranks share, the rate at which one rank writes, and the time of a hop in the
network. `docs/scale.md` describes the model.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import pickle
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any, Final, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from ranks import results_of

RANKS: Final = (8, 64, 1024)
BILLIONS: Final = (1, 7, 70, 400)

BYTES_PER_PARAMETER: Final = 12
"""A float32 weight, and AdamW's two moments, and its two moments."""

CALLS_PER_STEP: Final = 3
"""The control's reductions in a step. `test_collectives.py` counts them."""

PER_MACHINE: Final = 8
"""The ranks of a machine."""

SAVES_AN_HOUR: Final = 6

GROUPS: Final = 10
"""The process groups that are made to measure one."""

GB: Final = 1e9


class Parts(NamedTuple):
    """What one rank does, and the network: rates in bytes per second, times in seconds."""

    hash_rate: float
    copy_rate: float
    disk_rate: float
    storage_rate: float
    hop: float
    note_bytes: int


class Cost(NamedTuple):
    """The seconds that a training loses."""

    step: float
    plain: float
    sharded: float
    staged: float
    resume: float
    notes: float


def hops_of(ranks: int) -> float:
    """Return the hops of a reduction: on each machine, over the machines, and back."""
    machines = ranks // PER_MACHINE
    if machines == 1:
        return 2 * (ranks - 1)
    return 2 * (PER_MACHINE - 1) + 2 * (machines - 1) + math.log2(PER_MACHINE)


def estimate(parts: Parts, ranks: int, parameters: float) -> Cost:
    """Return what a training of so many ranks and parameters loses.

    Args:
        parts: The measured and the given parts.
        ranks: The number of processes.
        parameters: The number of parameters.
    """
    total = parameters * BYTES_PER_PARAMETER
    own = total / ranks
    notes = 2 * (ranks - 1) * parts.hop + ranks * parts.note_bytes / parts.disk_rate
    written = max(own / parts.disk_rate, total / parts.storage_rate) + own / parts.hash_rate
    by_one = total / min(parts.disk_rate, parts.storage_rate) + total / parts.hash_rate
    return Cost(
        step=CALLS_PER_STEP * hops_of(ranks) * parts.hop,
        plain=by_one + notes,
        sharded=written + notes,
        staged=own / parts.copy_rate + notes,
        resume=2 * max(own / parts.disk_rate, total / parts.storage_rate) + own / parts.hash_rate,
        notes=notes,
    )


def connections_of(ranks: int) -> int:
    """Return how many other processes a rank connects to at the start, in all groups together.

    These are torch's own group and that of the control, with all ranks; and with several machines,
    one with the ranks of the machine, and one with the first rank of each.
    """
    machines = ranks // PER_MACHINE
    return 2 * (ranks - 1) + (PER_MACHINE - 1 + machines - 1 if machines > 1 else 0)


def rate_of(do: Callable[[], Any], size: int, repeats: int) -> float:
    """Return the bytes per second at which `do` processes `size` bytes: the median of repeats."""
    times = []
    for _ in range(repeats):
        begun = perf_counter()
        do()
        times.append(perf_counter() - begun)
    return size / median(times)


def note_bytes() -> int:
    """Return the size of what each rank reports at a save: its random generators, twice."""
    _, keys, *rest = np.random.get_state(legacy=True)
    state = random.getstate(), torch.from_numpy(np.asarray(keys, np.int64)), rest
    return len(pickle.dumps([(state, torch.random.get_rng_state().numpy())] * 2))


class Together(NamedTuple):
    """The seconds that several processes of this machine take for what they do together."""

    connecting: float
    group_of_all: float
    group_of_two: float
    reduction: float


def _measure(rank: int, ranks: int, calls: int) -> Together:
    begun = perf_counter()
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    connecting = perf_counter() - begun
    dist.barrier()
    bits = torch.zeros(1, dtype=torch.int64)
    seconds = [
        median(_times(lambda: dist.new_group(backend="gloo"), min(calls, GROUPS))),
        median(_times(lambda: dist.new_group([0, 1], backend="gloo"), min(calls, GROUPS))),
        sum(_times(lambda: dist.all_reduce(bits), calls)) / calls,
    ]
    dist.barrier()
    dist.destroy_process_group()
    return Together(connecting, *seconds)


def _times(do: Callable[[], Any], calls: int) -> list[float]:
    """Return the seconds of each of several calls. There is one call before them."""
    do()
    begun = [perf_counter()]
    for _ in range(calls):
        do()
        begun.append(perf_counter())
    return [end - begin for begin, end in pairwise(begun)]


def measure_together(ranks: int, calls: int) -> Together:
    """Return the times of so many processes of this machine, as the first of them has them."""
    together: Together = results_of(_measure, ranks, calls)[0]
    return together


def rows_of(parts: Parts, step: float) -> Iterator[list[str]]:
    """Yield a row for each number of ranks and parameters, with its first bottleneck."""
    for ranks in RANKS:
        for billions in BILLIONS:
            cost = estimate(parts, ranks, billions * 1e9)
            hourly = {
                "reductions of each step": cost.step / step * 3600,
                "checkpoints": cost.staged * SAVES_AN_HOUR,
            }
            first = max(hourly, key=lambda name: hourly[name])
            yield [
                *(str(ranks), str(billions), f"{cost.step * 1e3:.1f} ms"),
                *(f"{one:,.1f} s" for one in (cost.plain, cost.sharded, cost.staged, cost.resume)),
                f"{first}, {hourly[first]:,.0f} s an hour",
            ]


def main() -> None:
    """Measure the parts, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--storage", type=float, default=100, help="GB/s of the shared storage")
    parser.add_argument("--disk", type=float, default=2, help="GB/s that one rank writes")
    parser.add_argument("--hop", type=float, default=20, help="µs of a hop in the network")
    parser.add_argument("--step", type=float, default=1, help="seconds of a step")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    options = parser.parse_args()
    size, repeats = (1 << 20, 1) if options.quick else (1 << 28, 5)
    source, target = torch.zeros(size, dtype=torch.uint8), torch.empty(size, dtype=torch.uint8)
    data = memoryview(source.numpy())
    torch.set_num_threads(1)
    parts = Parts(
        hash_rate=rate_of(lambda: hashlib.sha256(data).digest(), size, repeats),
        copy_rate=rate_of(lambda: target.copy_(source), size, repeats),
        disk_rate=options.disk * GB,
        storage_rate=options.storage * GB,
        hop=options.hop * 1e-6,
        note_bytes=note_bytes(),
    )
    print(f"one core hashes {parts.hash_rate / GB:.2f} GB/s and copies {parts.copy_rate / GB:.2f}")
    print(f"each rank reports {parts.note_bytes:,} bytes at a save\n")
    names = ["processes on this machine", "one all-reduce", "for each hop", "connecting"]
    names += ["a group of all", "a group of two"]
    print(f"| {' | '.join(names)} |\n|{'--:|' * len(names)}")
    connection = 0.0
    for ranks in (2, 4) if options.quick else (2, 4, 8):
        took = measure_together(ranks, calls=2 if options.quick else 200)
        per_hop = took.reduction / (2 * (ranks - 1))
        row = [f"{one * 1e6:,.0f} µs" for one in (took.reduction, per_hop)]
        row += [f"{one * 1e3:,.0f} ms" for one in took[:3]]
        print(f"| {ranks} | {' | '.join(row)} |")
        # Each process has made one end of each of its connections, on the cores that all share.
        connection = took.group_of_all * min(ranks, os.cpu_count() or 1) / (ranks * (ranks - 1))
    print(f"\neach end of a connection takes {connection * 1e3:.2f} ms of a core\n")
    print("| ranks | groups at the start |\n|--:|--:|")
    for ranks in RANKS:
        print(f"| {ranks} | {connections_of(ranks) * connection:.2f} s |")
    head = ["ranks", "10⁹ parameters", "control of a step", "plain save", "sharded save"]
    head += ["wait with `save_async`", "resume", f"first bottleneck, {options.step:g} s a step"]
    print(f"\n| {' | '.join(head)} |\n|{'--:|' * (len(head) - 1)}---|")
    for row in rows_of(parts, options.step):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
