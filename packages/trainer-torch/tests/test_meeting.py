"""Processes of an attempt find each other, and not those of an attempt before it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from trainer_torch.ranks.meeting import meet

LONG, SHORT = timedelta(seconds=300), timedelta(seconds=1)


@pytest.fixture
def server() -> TCPStore:
    return TCPStore("localhost", 0, is_master=True, wait_for_workers=False)


def client(server: TCPStore) -> TCPStore:
    return TCPStore("localhost", server.port, is_master=False)


def attempt(server: TCPStore, size: int) -> list[str]:
    """Return what each rank reads of what rank 0 has written in the store of the attempt."""

    def join(rank: int) -> str:
        store = meet(client(server), rank, size, LONG)
        if rank == 0:
            store.set("written", str(threading.get_ident()))
        return store.get("written").decode()

    with ThreadPoolExecutor(size) as ranks:
        return list(ranks.map(join, reversed(range(size))))


@pytest.mark.parametrize("size", [2, 5])
def test_all_ranks_share_a_store_that_is_another_one_in_each_attempt(
    server: TCPStore, size: int
) -> None:
    first, second = attempt(server, size), attempt(server, size)
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != "" != second[0]


def test_what_dead_ranks_have_written_is_passed_over(server: TCPStore) -> None:
    with ThreadPoolExecutor(2) as dead:  # rank 1 never comes, and rank 2 is answered
        answered = dead.submit(meet, client(server), 2, 3, LONG)
        with pytest.raises(TimeoutError, match="1"):
            meet(client(server), 0, 3, SHORT)
        answered.result()
    assert len(set(attempt(server, 3))) == 1


def test_a_rank_that_waits_for_rank_0_in_vain_ends(server: TCPStore) -> None:
    attempt(server, 2)
    with pytest.raises(TimeoutError):
        meet(client(server), 1, 2, SHORT)
