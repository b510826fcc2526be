"""Reductions in processes that stand for two machines: the first has two, the second three.

Run as `torchrun ... reduction_cases.py reduce DIRECTORY`, like `distributed_cases.py`.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from trainer_torch.ranks.reduction import Reduction

RANK = int(os.environ.get("RANK", "0"))
LOCAL_RANKS = [0, 1, 0, 1, 2]


def reduce() -> dict[str, list[int]]:
    """Return what this rank gets from each operation on the numbers of all."""
    dist.init_process_group("gloo")
    for _ in range(2):  # as two Trainers in one process
        reduction = Reduction(dist.new_group(), LOCAL_RANKS[RANK], timedelta(seconds=60))
    operations = {"sum": dist.ReduceOp.SUM, "least": dist.ReduceOp.MIN, "or": dist.ReduceOp.BOR}
    found = {}
    for name, operation in operations.items():
        numbers = torch.tensor([1 << RANK, 10 - RANK])
        reduction(numbers, operation)
        found[name] = numbers.tolist()
    dist.barrier()
    dist.destroy_process_group()
    return found


if __name__ == "__main__":
    Path(sys.argv[2], f"rank{RANK}.json").write_text(json.dumps(reduce()))
