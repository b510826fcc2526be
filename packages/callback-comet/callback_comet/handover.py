"""`HandOver`: gives the SDK what it is to send, and waits until Comet has it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

PARAMETERS: Final = "parameters"
"""What parameters are called in what is given."""

PATIENCE: Final = 10.0
"""Seconds without any progress after which what the SDK says is sent counts as refused."""


class HandOver:
    """Gives an experiment what it is to keep.

    The SDK sends it in threads of its own, says nothing where that fails, and sends it again once
    its server is there again. So it is given nothing twice, unless it has lost it.

    Args:
        experiment: The experiment.
        offline: Whether it writes to files and has no server.
    """

    def __init__(self, experiment: Any, offline: bool) -> None:
        self._experiment, self._offline = experiment, offline
        self._given: set[Hashable] = set()
        self._lost = 0

    def give(self, content: Mapping[Hashable, Callable[[], None]]) -> None:
        """Call each of `content` that has not been called yet, and wait until Comet has all.

        Raises:
            ConnectionError: It has not got it now.
        """
        if not self._experiment.alive:
            raise ConnectionError("the Comet experiment was ended by somebody else")
        for key, give in content.items():
            if key not in self._given:
                give()
                self._given.add(key)
        if self._offline:
            self._wait_for_disk()
        else:
            self._wait_for_server(counted=PARAMETERS not in content)
        self._given.difference_update(content)

    def _wait_for_disk(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._experiment.streamer.messages.empty():
            if time.monotonic() > deadline:
                raise ConnectionError("Comet does not write its offline files")
            time.sleep(0.01)

    def _wait_for_server(self, counted: bool) -> None:
        deadline, left = time.monotonic() + PATIENCE, None
        while True:
            flushed = self._experiment.flush() and self._experiment.flush()  # see `_unsent`
            now = _unsent(self._experiment)
            connected = self._experiment.streamer.has_connection_to_server()
            if flushed and now <= self._lost and (connected or counted):
                return
            if not (flushed and connected):
                raise ConnectionError("Comet's server does not answer")
            if now != left:
                deadline, left = time.monotonic() + PATIENCE, now
            elif time.monotonic() > deadline:
                self._lost = now
                self._given.clear()
                raise ConnectionError("Comet's server has refused what it was sent")


def _unsent(experiment: Any) -> int:
    """Return how many metrics, files and notes the server has not taken.

    No public method knows of that: `flush` succeeds whatever the server has answered. The first one
    may miss what was logged a moment ago, the second does not. Parameters are not counted here, for
    the SDK loses count of them.
    """
    database = experiment.streamer.replay_manager.conn
    query = "SELECT count(*) FROM messages WHERE message_type != 'parameter_msg'"
    try:
        count: int = database.execute(query).fetchone()[0]
    except sqlite3.Error as error:
        raise ConnectionError(f"Comet's SDK has lost what it was to send: {error}") from error
    return count


def given_up(experiment: Any) -> None:
    """End an experiment without what the SDK would still send; may wait for the server."""
    experiment.streamer.replay_manager.close()
    experiment.clean()
