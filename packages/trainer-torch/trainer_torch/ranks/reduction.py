"""All-reduces integers over many machines, in fewer hops than one ring of all processes takes."""

from __future__ import annotations

from bisect import bisect_right
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch.distributed as dist
from torch import Tensor


class Reduction:
    """An all-reduce over all processes: on each machine first, and then over the machines.

    gloo's all-reduce over n processes takes 2 (n - 1) hops from process to process. With m machines
    of k processes, this one takes 2 (k - 1) + 2 (m - 1) hops and a broadcast.

    All processes must make one, and call it in the same order.

    Args:
        group: A group of all processes, on the CPU.
        local_rank: The number of this process on its machine. The ranks of a machine are
            consecutive.
        timeout: How long a process waits for the others.
    """

    def __init__(self, group: Any, local_rank: int, timeout: timedelta) -> None:
        self._group = group
        ranks: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(ranks, local_rank, group=group)
        firsts = [rank for rank, local in enumerate(ranks) if local == 0]
        self._has_levels = 1 < len(firsts) < len(ranks)
        if not self._has_levels:
            return
        machines = [list(range(*ends)) for ends in pairwise([*firsts, len(ranks)])]
        # All processes make all groups, even those that they do not join. torch names a group by
        # how many a process has made, so that number must be the same everywhere.
        groups = [
            dist.new_group(members, backend="gloo", timeout=timeout)
            for members in (*machines, firsts)
        ]
        number = bisect_right(firsts, dist.get_rank()) - 1
        self._first, self._machine = firsts[number], groups[number]
        self._machines = groups[-1] if local_rank == 0 else None

    def __call__(self, numbers: Tensor, operation: Any) -> None:
        """All-reduce the integers in `numbers`, in place, by an operation such as a sum."""
        if not self._has_levels:
            dist.all_reduce(numbers, operation, group=self._group)
            return
        dist.all_reduce(numbers, operation, group=self._machine)
        if self._machines is not None:
            dist.all_reduce(numbers, operation, group=self._machines)
        dist.broadcast(numbers, src=self._first, group=self._machine)
