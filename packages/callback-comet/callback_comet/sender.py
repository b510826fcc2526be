"""`Sender`: passes data to Comet's SDK, and waits until Comet has received it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

PARAMETERS: Final = "parameters"
"""The key of parameters in the content of `Sender.send`."""

PATIENCE: Final = 10.0
"""Seconds without progress after which the data in the SDK's queue counts as refused."""


class Sender:
    """Passes data to an experiment, and never the same data twice unless the SDK lost it.

    The SDK sends in its own threads. It does not report failures, and sends the data again when its
    server is back. Passing the same data again would therefore duplicate it.

    Args:
        experiment: The experiment.
        offline: Whether the experiment writes to files instead of a server.
    """

    def __init__(self, experiment: Any, offline: bool) -> None:
        self._experiment, self._offline = experiment, offline
        self._passed: set[Hashable] = set()  # to the SDK; Comet may not have it yet
        self._refused = 0  # messages that stay in the SDK's queue

    def send(self, content: Mapping[Hashable, Callable[[], None]]) -> None:
        """Pass `content` to the SDK, and wait until Comet has received it.

        Args:
            content: The calls that pass the data, by the key of the data. A call whose key an
                earlier, failed `send` has passed already is not made again.

        Raises:
            ConnectionError: Comet has not received the data.
        """
        if not self._experiment.alive:
            raise ConnectionError("other code has ended the Comet experiment")
        for key, pass_on in content.items():
            if key not in self._passed:
                pass_on()
                self._passed.add(key)
        if self._offline:
            self._wait_for_disk()
        else:
            self._wait_for_server(counted=PARAMETERS not in content)
        self._passed.difference_update(content)

    def _wait_for_disk(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._experiment.streamer.messages.empty():
            if time.monotonic() > deadline:
                raise ConnectionError("Comet's SDK does not write its offline files")
            time.sleep(0.01)

    def _wait_for_server(self, counted: bool) -> None:
        """Wait until the server has received everything.

        Args:
            counted: Whether `_unsent` counts all of the data. If it does not, a connection to the
                server is required as well.
        """
        deadline, before = time.monotonic() + PATIENCE, None
        while True:
            flushed = self._experiment.flush() and self._experiment.flush()  # see `_unsent`
            unsent = _unsent(self._experiment)
            connected = self._experiment.streamer.has_connection_to_server()
            if flushed and unsent <= self._refused and (connected or counted):
                return
            if not (flushed and connected):
                raise ConnectionError("Comet's server does not answer")
            if unsent != before:
                deadline, before = time.monotonic() + PATIENCE, unsent
            elif time.monotonic() > deadline:
                self._refused = unsent
                self._passed.clear()
                raise ConnectionError("Comet's server refused the data")


def _unsent(experiment: Any) -> int:
    """Return the number of metrics, files and notes that the server has not accepted.

    The SDK has no public method for this: `flush` succeeds whatever the server answers. Call
    `flush` twice before this: the first call may miss what was logged a moment ago. Parameters are
    not counted, because the SDK's own count of them is unreliable.
    """
    database = experiment.streamer.replay_manager.conn
    query = "SELECT count(*) FROM messages WHERE message_type != 'parameter_msg'"
    try:
        count: int = database.execute(query).fetchone()[0]
    except sqlite3.Error as error:
        raise ConnectionError(f"Comet's SDK has lost its queue: {error}") from error
    return count


def discard(experiment: Any) -> None:
    """End an experiment, and discard what the SDK has not sent. This may wait for the server."""
    experiment.streamer.replay_manager.close()
    experiment.clean()
