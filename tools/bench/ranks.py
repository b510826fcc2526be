"""Runs a function in several processes of this machine, for the benchmarks of ranks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.multiprocessing as mp

from callback_contract.testing import unused_port


def results_of(do: Callable[..., Any], ranks: int, *arguments: Any) -> list[Any]:
    """Return what `do(rank, ranks, *arguments)` returns in each process, by rank.

    The processes have one thread each, and the environment that torchrun sets.
    """
    results: Any = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_run, (do, ranks, unused_port(), arguments, results), nprocs=ranks)
    found = dict(results.get() for _ in range(ranks))
    return [found[rank] for rank in range(ranks)]


def _run(
    rank: int, do: Callable[..., Any], ranks: int, port: int, arguments: Any, results: Any
) -> None:
    os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{ranks}"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
    torch.set_num_threads(1)
    results.put((rank, do(rank, ranks, *arguments)))
