"""Processes that are forked from one that has imported torch, but has trained nothing."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from callback_contract.testing import unused_port


def start(call: Callable[..., Any], *args: Any, spawns: bool = False) -> Any:
    """Start a process that calls a function, and return it. The arguments must be picklable.

    The server that forks it imports torch once, in a process of its own, so a child starts quickly
    and shares no state with this process or another child.

    Args:
        call: The function.
        args: Its arguments.
        spawns: Start a new interpreter instead, because a GPU may not be used in a forked process
            if anything has used it before.
    """
    context: Any = multiprocessing.get_context("spawn" if spawns else "forkserver")
    if not spawns:
        serve()
    process = context.Process(target=_run, args=(call, args))
    process.start()
    return process


def _run(call: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Call the function in a process that forks its own children, as is the default on Linux."""
    multiprocessing.set_start_method("fork", force=True)
    call(*args)


def serve(*modules: str) -> None:
    """Start the server, if there is none.

    Args:
        modules: What it imports too.
    """
    server = multiprocessing.forkserver
    # Optimizers import torch._dynamo, which would take each child longer than its training.
    server.set_forkserver_preload(["torch._dynamo", "training_to_kill", *modules])
    # In Python 3.11 the server does not get sys.path, and would leave out the imports silently.
    path = [str(Path(__file__).parent), *map(os.path.abspath, sys.path)]
    changed = {"PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    with mock.patch.dict(os.environ, changed):
        server.ensure_running()


def environments(size: int) -> list[dict[str, str]]:
    """Return the environment of each of `size` processes that train together on this machine."""
    if size == 1:
        return [{}]
    shared = {
        "WORLD_SIZE": f"{size}",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": f"{unused_port()}",
    }
    return [{**shared, "RANK": f"{one}", "LOCAL_RANK": f"{one}"} for one in range(size)]
