"""`Outbox`: queues the operations of a run, and sends them in batches on `flush`."""

from __future__ import annotations

from threading import Lock, get_ident
from typing import Any, Final

_BATCH: Final = 1000  # operations in a request, as in Neptune's own queue


class Outbox:
    """Replaces the queue of an online Neptune run.

    Neptune's own queues block. In the mode `sync`, each value waits for the server. In the mode
    `async`, a thread of Neptune's blocks every fork of the process, and its exit, while the server
    is unreachable. This queue only stores values, in any thread, until `flush` sends them.

    Args:
        run: The run.
        queue: The run's queue in the mode `sync`.
    """

    def __init__(self, run: Any, queue: Any) -> None:
        self._run, self._queue = run, queue
        self._pending: list[tuple[int, Any]] = []
        self._lock = Lock()
        self._sending = Lock()

    @property
    def operation_storage(self) -> Any:
        """The storage of the run's files until they are sent."""
        return self._queue.operation_storage

    @property
    def data_path(self) -> Any:
        """The directory of the run."""
        return self._queue.data_path

    def enqueue_operation(self, operation: Any, *, wait: bool) -> None:
        """Queue an operation; `wait` also sends the queue."""
        with self._lock:
            self._pending.append((get_ident(), operation))
        if wait:
            self.flush()

    def flush(self) -> list[str]:
        """Send all queued operations, and return the server's errors about them.

        If this raises, the unsent operations stay in the queue.
        """
        refused: list[str] = []
        with self._sending:
            while True:
                with self._lock:
                    batch = [operation for _, operation in self._pending[:_BATCH]]
                if not batch:
                    return refused
                done, errors = self._run._backend.execute_operations(  # noqa: SLF001
                    container_id=self._run._id,  # noqa: SLF001
                    container_type=self._run.container_type,
                    operations=batch,
                    operation_storage=self.operation_storage,
                )
                with self._lock:
                    del self._pending[:done]
                refused.extend(map(str, errors))

    wait = flush

    def forget_own(self) -> None:
        """Drop the current thread's queued operations, because its caller will repeat them."""
        with self._sending, self._lock:
            self._pending = [entry for entry in self._pending if entry[0] != get_ident()]

    def stop(self, seconds: float | None = None) -> None:
        """Close the run's directory. This sends nothing: call `flush` before."""
        self._queue.stop(seconds)

    def start(self) -> None:
        """Do nothing: there is no thread."""

    pause = resume = close = start
