"""A network that is unreachable for a while."""

from __future__ import annotations

import errno
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock


class Network:
    """The use of the network in a block by this thread, and perhaps by new ones.

    Args:
        with_new_threads: Whether threads that do not exist yet are watched, too. Older ones may
            still deliver what an earlier rule logged.

    Attributes:
        is_down: Whether connections are refused.
        tried: Whether a connection was tried, whether or not it was refused.
        refused: The addresses of the connections that were refused.
        refusals: How many were refused.
        endless: Those among them that have no timeout.
        paused: The seconds that this thread slept.
    """

    def __init__(self, *, with_new_threads: bool) -> None:
        self._main = threading.current_thread()
        self._others = {*threading.enumerate()} if with_new_threads else None
        self.is_down = False
        self.tried = False
        self.refused: set[str] = set()
        self.refusals = 0
        self.endless: set[str] = set()
        self.paused = 0.0

    def watches(self) -> bool:
        """Return whether the current thread is watched."""
        thread = threading.current_thread()
        return thread is self._main or (self._others is not None and thread not in self._others)

    def connect(self, connection: Any, address: Any) -> None:
        """Refuse a connection if the network is down."""
        self.tried = True
        if self.is_down:
            self.refused.add(str(address))
            self.refusals += 1
            if connection.gettimeout() is None:
                self.endless.add(str(address))
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


_WATCHING: Final[list[Network]] = []
_HOOKED: Final[list[bool]] = []


@contextmanager
def watched_network(network: Network) -> Iterator[Network]:
    """Let `network` see each connection of the block, and refuse it.

    An audit hook sees the connections. It cannot be removed, so it is added once and does nothing
    outside these blocks.
    """
    if not _HOOKED:
        _HOOKED.append(True)
        sys.addaudithook(_see)
    _WATCHING.append(network)
    try:
        yield network
    finally:
        _WATCHING.remove(network)


@contextmanager
def no_network() -> Iterator[Network]:
    """Refuse this thread's connections, and skip its pauses.

    All host names resolve to this machine, so that each connection is tried.
    """
    network = Network(with_new_threads=False)
    network.is_down = True
    resolve, sleep = socket.getaddrinfo, time.sleep

    def resolve_here(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if not network.watches():
            return resolve(host, port, *args, **kwargs)
        number = port if isinstance(port, int) else 80
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, ("127.0.0.1", number))]

    def pause(seconds: Any) -> None:
        if network.watches():
            network.paused += seconds
        else:
            sleep(seconds)

    with (
        watched_network(network),
        mock.patch.object(socket, "getaddrinfo", resolve_here),
        mock.patch.object(time, "sleep", pause),
    ):
        yield network


def _see(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    connection, address = arguments
    if getattr(connection, "family", None) in (socket.AF_INET, socket.AF_INET6):
        for network in (network for network in _WATCHING if network.watches()):
            network.connect(connection, address)
