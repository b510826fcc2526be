"""`Outbox`: what a run is given, sent in few requests and only when it is asked to."""

from __future__ import annotations

from threading import Lock, get_ident
from typing import Any, Final

_BATCH: Final = 1000  # operations in a request, as Neptune's own queue has it


class Outbox:
    """Takes the place of the queue of a Neptune run that is online.

    Neptune's own ones wait: `sync` at each value, for the server; `async` for a thread of its own,
    which holds every fork of the process, and its exit, while the server is away. Here a value is
    only noted, in any thread, and sent by whoever calls `flush`.

    Args:
        run: The run.
        queue: Its queue in the mode `sync`.
    """

    def __init__(self, run: Any, queue: Any) -> None:
        self._run, self._queue = run, queue
        self._waiting: list[tuple[int, Any]] = []
        self._lock = Lock()
        self._sending = Lock()

    @property
    def operation_storage(self) -> Any:
        """Where the run keeps files until they are sent."""
        return self._queue.operation_storage

    @property
    def data_path(self) -> Any:
        """The folder of the run."""
        return self._queue.data_path

    def enqueue_operation(self, operation: Any, *, wait: bool) -> None:
        """Note an operation; `wait` sends all that is noted."""
        with self._lock:
            self._waiting.append((get_ident(), operation))
        if wait:
            self.flush()

    def flush(self) -> list[str]:
        """Send all that is noted, and return what the server says against it.

        What an error leaves is still noted.
        """
        said: list[str] = []
        with self._sending:
            while True:
                with self._lock:
                    batch = [operation for _, operation in self._waiting[:_BATCH]]
                if not batch:
                    return said
                done, errors = self._run._backend.execute_operations(  # noqa: SLF001
                    container_id=self._run._id,  # noqa: SLF001
                    container_type=self._run.container_type,
                    operations=batch,
                    operation_storage=self.operation_storage,
                )
                with self._lock:
                    del self._waiting[:done]
                said.extend(map(str, errors))

    wait = flush

    def forget_own(self) -> None:
        """Forget what this thread has noted, which will give it again."""
        with self._sending, self._lock:
            self._waiting = [entry for entry in self._waiting if entry[0] != get_ident()]

    def stop(self, seconds: float | None = None) -> None:
        """Close the folder of the run. What has to be sent is sent before."""
        self._queue.stop(seconds)

    def start(self) -> None:
        """Nothing: there is no thread."""

    pause = resume = close = start
