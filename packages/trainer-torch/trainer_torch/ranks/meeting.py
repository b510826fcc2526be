"""Connects the processes of one attempt of `torchrun` through its store."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Final
from uuid import uuid4

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from trainer_torch.messages import listed

_PAUSE: Final = 0.1  # seconds


def meet(store: Store, rank: int, size: int, timeout: timedelta) -> Store:
    """Return a part of `store` that only the processes of this attempt use.

    torchrun keeps one store for all attempts. It still has the addresses of earlier attempts, to
    which processes would try to connect. So each process writes a new random token. Rank 0 answers
    each process with that process's token and its own. Only a rank 0 of the same attempt can know
    the new token. The process then registers under rank 0's token.

    Args:
        store: The store.
        rank: The number of this process.
        size: The number of processes.
        timeout: How long to wait for the others.

    Raises:
        TimeoutError: Not all processes have connected in time.
    """
    own, until = uuid4().hex, time.monotonic() + timeout.total_seconds()
    token = _gather(store, own, size, until) if rank == 0 else _join(store, own, rank, until)
    return PrefixStore(f"attempt/{token}", store)


def _gather(store: Store, own: str, size: int, until: float) -> str:
    """Answer the other ranks until all are present, and return the token of rank 0."""
    answered: dict[int, bytes] = {}
    while store.add(f"{own}/present", 0) < size - 1:
        for rank in range(1, size):
            if not store.check([f"hello/{rank}"]):
                continue
            token = store.get(f"hello/{rank}")
            if token != answered.get(rank):
                store.set(f"answer/{rank}", f"{token.decode()} {own}")
                answered[rank] = token
        if time.monotonic() > until:
            absent = [str(one) for one in range(1, size) if not store.check([f"{own}/{one}"])]
            raise TimeoutError(
                f"Rank 0 cannot begin, because these ranks have not connected within ddp_timeout: "
                f"{listed(absent)}. Look for errors in their output."
            )
        time.sleep(_PAUSE)
    return own


def _join(store: Store, own: str, rank: int, until: float) -> str:
    """Return the token of rank 0, once it has answered."""
    store.set(f"hello/{rank}", own)
    while True:
        if store.check([f"answer/{rank}"]):
            answered, token = store.get(f"answer/{rank}").decode().split()
            if answered == own:
                store.set(f"{token}/{rank}", "")
                store.add(f"{token}/present", 1)
                return token
        if time.monotonic() > until:
            raise TimeoutError(
                f"Rank {rank} cannot begin, because rank 0 has not connected within ddp_timeout. "
                "Look for errors in the output of rank 0."
            )
        time.sleep(_PAUSE)
