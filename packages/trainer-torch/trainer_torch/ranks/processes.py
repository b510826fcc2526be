"""The processes that `torchrun` starts: which one this is, how they connect, who goes first."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import Enum
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from trainer_torch.ranks.meeting import meet

_FROM_TORCHRUN: Final = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class ParallelMode(Enum):
    """How the devices of a training work together, under transformers' names."""

    NOT_PARALLEL = "not_parallel"
    DISTRIBUTED = "distributed"
    NOT_DISTRIBUTED = "not_distributed"
    """Several GPUs in one process. This Trainer never does that; code may compare with it."""


def _is_connected() -> bool:
    """Return whether the processes have a process group."""
    return dist.is_available() and dist.is_initialized()


def size() -> int:
    """Return the number of processes, also before they are connected."""
    return dist.get_world_size() if _is_connected() else int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return the number of this process, from 0, also before the processes are connected."""
    if _is_connected():
        return dist.get_rank()
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def local_rank() -> int:
    """Return the number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", rank())) if size() > 1 else 0


def may_restart() -> bool:
    """Return whether `torchrun` starts the processes again after a failure."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0


def connect(device: torch.device, timeout: timedelta, backend: str | None = None) -> None:
    """Connect the processes of torchrun, and select a device for this one.

    A single process, or one that is connected already, stays as it is.

    Args:
        device: The kind of device that they train on.
        timeout: How long a process waits for the others.
        backend: The backend of `torch.distributed`; by default torch's for the device.

    Raises:
        TimeoutError: Not all processes have connected in time.
        RuntimeError: `WORLD_SIZE` is set, but not the variables that the processes need to connect;
            or this machine has fewer devices than processes.
        ValueError: This PyTorch lacks the backend, or the processes are connected with another one.
    """
    if _is_connected():
        _check_backend_in_use(backend)
        return
    if size() == 1:
        return
    if missing := [name for name in _FROM_TORCHRUN if name not in os.environ]:
        raise RuntimeError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but these variables, which processes need "
            f"to connect, are not set: {', '.join(missing)}. Start the processes with torchrun, or "
            "unset WORLD_SIZE."
        )
    if backend is not None and backend.isalpha() and not dist.is_backend_available(backend):
        raise ValueError(
            f"ddp_backend is {backend!r}, which this PyTorch does not have. Leave it out, or use "
            "'gloo', which works on every device."
        )
    if device.type != "cpu":
        count = torch.accelerator.device_count()
        if local_rank() >= count:
            raise RuntimeError(
                f"LOCAL_RANK is {local_rank()}, but this machine has {count} device(s) of type "
                f"{device.type}. Start at most one process per device, or train with use_cpu=True."
            )
        torch.accelerator.set_device_index(local_rank())
    backend = backend or dist.get_default_backend_for_device(device.type)
    place: dict[str, Any] = {}
    if may_restart():
        store, own, count = next(rendezvous("env://", timeout=timeout))
        place = {"store": meet(store, own, count, timeout), "rank": own, "world_size": count}
    dist.init_process_group(backend, timeout=timeout, **place)
    atexit.register(_disconnect)


@contextmanager
def one_goes_first(goes_first: bool, timeout: timedelta) -> Iterator[None]:
    """Let the processes wait, before the block, until those that go first have left it.

    Every process must enter. They wait in a group of their own on the CPU, not on a device.

    Args:
        goes_first: Whether this process is one of those that the others wait for.
        timeout: How long the others wait.
    """
    if size() == 1:
        yield
        return
    group = dist.new_group(backend="gloo", timeout=timeout)
    try:
        if not goes_first:
            dist.barrier(group)
        yield
    finally:
        if goes_first:
            dist.barrier(group)
        dist.destroy_process_group(group)


def _check_backend_in_use(backend: str | None) -> None:
    if backend is not None and backend not in dist.get_backend_config():
        raise ValueError(
            f"ddp_backend is {backend!r}, but the processes are already connected with "
            f"{dist.get_backend_config()!r}. Leave ddp_backend out, or connect them with it."
        )


def _disconnect() -> None:
    """Destroy the process group, unless an error ends this process.

    Destroying it waits for the other processes, which might never answer after an error.
    """
    if dist.is_initialized() and not hasattr(sys, "last_value"):
        dist.destroy_process_group()
