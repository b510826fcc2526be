"""Handles signals that ask the training to stop: it ends after the current step."""

from __future__ import annotations

import faulthandler
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)

_BY_PEOPLE_AND_CLUSTERS: Final = ("SIGINT", "SIGTERM")

_BY_CLUSTERS: Final = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Clusters send them before they kill a job, if it asks for that. By default, each kills it."""

SIGNALS: Final = tuple(
    getattr(signal, name)
    for name in (*_BY_PEOPLE_AND_CLUSTERS, *_BY_CLUSTERS)
    if hasattr(signal, name)  # Windows has only the first two
)

STACKS: Final[signal.Signals | None] = getattr(signal, "SIGURG", None)
"""At this signal, workers of data loaders print their stacks. By default, processes ignore it."""

_SAME_DELIVERY: Final = 1.0
"""The seconds within which a second signal is the same request to stop.

Clusters and launchers may deliver a signal several times: to the process group and to each process.
"""

_HANDLED_HERE, _NUMBER = 0, 1
"""The places of these values in the memory that workers share."""


class Signals:
    """A context that records the first signal to stop, for the loop to act on between steps.

    These are SIGINT and SIGTERM, and signals that clusters send before they kill a job: SIGHUP,
    SIGUSR1, SIGUSR2 and SIGXCPU. The latter belong to the program if it handles them itself. A
    signal that the program ignores stays ignored. Its own handler of SIGINT or SIGTERM is called
    too. If that handler raises `SystemExit` or `KeyboardInterrupt`, the training ends with that
    exception, but still after the current step.

    If the same signal comes again more than a second after the first, it ends the training at once.
    So does SIGINT. While the training is ending, only SIGINT does. Python delivers signals to the
    main thread only; in any other thread, the context does nothing.

    Args:
        clock: Returns the seconds since some point in time.

    Attributes:
        received: The signal that this process received, if any.
        due: The signal for which the loop must end the training. Any process may have received it.
        where: A text that says which of several processes received it.
        is_ending: Whether the training is ending: its last checkpoint is being saved, or its
            callbacks are being closed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.received: signal.Signals | None = None
        self.due: signal.Signals | None = None
        self.where = ""
        self.is_ending = False
        self._clock = clock
        self._received_at = 0.0
        self._exit_of_program: BaseException | None = None
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self._shared: Tensor | None = None  # with the workers of data loaders

    def __enter__(self) -> Signals:
        """Install the handlers."""
        self.received, self.due, self.where, self.is_ending = None, None, "", False
        self._exit_of_program = None
        if threading.current_thread() is threading.main_thread():
            caught = _caught()
            self._previous_handlers = {
                number: signal.signal(number, self._handle)
                for number in SIGNALS
                if _is_free(number, caught)
            }
        self._tell_workers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Restore the previous handlers, and raise for a signal that the loop has not seen."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}
        self._tell_workers()
        self.warn_of_workers(since=0.0)
        if error is None and self.received is not None:
            self.due = self.received
            self.raise_due()

    @property
    def reason(self) -> str:
        """Why the training ends."""
        return f"{_shown(self.due)} was received{self.where}" if self.due else ""

    def raise_due(self) -> None:
        """Raise the exception that ends the program, if a signal is due.

        Raises:
            KeyboardInterrupt: The signal is SIGINT.
            SystemExit: It is another one. The exit code is 128 + its number, as a shell reports it;
                or the one of the program's own handler.
        """
        if self.due is not None and self._exit_of_program is not None:
            raise self._exit_of_program
        if self.due == signal.SIGINT:
            raise KeyboardInterrupt
        if self.due is not None:
            raise SystemExit(128 + self.due)

    def protect_workers(self, dataloader: Any) -> None:
        """Make the workers of `dataloader` ignore signals while this process handles them.

        Signals of Ctrl-C and of clusters also reach the workers. Without this, the workers end at
        once, and the training ends in the middle of a step.
        """
        if not (isinstance(dataloader, DataLoader) and dataloader.num_workers):
            return
        if self._shared is None:
            self._shared = torch.zeros(4, dtype=torch.float64).share_memory_()
        given = dataloader.worker_init_fn
        if isinstance(given, _WorkerInit):
            given = given.then
        dataloader.worker_init_fn = _WorkerInit(self._shared, given)
        self._tell_workers()

    def warn_of_workers(self, since: float = _SAME_DELIVERY) -> None:
        """Warn of a signal that reached a worker of a data loader, but not this process.

        The worker ignores such a signal, so the training continues.

        Args:
            since: How many seconds ago it must have come. Until then, it may still reach this
                process too.
        """
        if self._shared is None or self._shared[_NUMBER] == 0:
            return
        _, number, at, worker = self._shared.tolist()
        if time.monotonic() - at >= since:
            self._shared[_NUMBER] = 0
            if self.received is None:
                logger.warning(
                    "A worker of the data loader, process %d, received %s, but the training "
                    "process did not. The training continues. To end it, send the signal to "
                    "process %d.",
                    worker,
                    signal.Signals(int(number)).name,
                    os.getpid(),
                )

    def _tell_workers(self) -> None:
        if self._shared is not None:
            self._shared[_HANDLED_HERE] = bool(self._previous_handlers)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        got, now = signal.Signals(number), self._clock()
        if self._ends_at_once(got, now):
            self.received = self.due = got
            self._exit_of_program = None
            self.raise_due()
        if self.received is None:
            self.received, self._received_at = got, now
            logger.warning(
                "Received %s: the training is already ending. To end it at once, press Ctrl-C."
                if self.is_ending
                else "Received %s: the training ends after this step, with any evaluation and "
                "checkpoint that is due. To end it at once, send the signal again.",
                _shown(got),
            )
        previous = self._previous_handlers.get(got)
        if callable(previous) and previous is not signal.default_int_handler:
            try:
                previous(number, frame)
            except (KeyboardInterrupt, SystemExit) as ended:
                self._exit_of_program = ended

    def _ends_at_once(self, got: signal.Signals, now: float) -> bool:
        """Return whether a signal ends the training at once.

        A signal that is neither the first one again nor SIGINT does not: clusters may send SIGUSR1
        first, and SIGTERM later.
        """
        if self.is_ending and self.due is None:
            return got == signal.SIGINT
        if self.received is None or now - self._received_at <= _SAME_DELIVERY:
            return False
        return got == signal.SIGINT or (got == self.received and not self.is_ending)


@contextmanager
def workers_starting(dataloader: Any) -> Iterator[None]:
    """Block signals while workers of `dataloader` start, if `protect_workers` has seen it.

    Workers inherit the blocked signals until they have their handlers. Otherwise, a signal that
    comes before would end them.
    """
    is_protected = isinstance(getattr(dataloader, "worker_init_fn", None), _WorkerInit)
    if not is_protected or not hasattr(signal, "pthread_sigmask"):  # Windows has none
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _WorkerInit:
    """Sets up a worker of a data loader, so that it leaves signals to the training's process.

    Args:
        shared: In shared memory: whether that process handles signals now; and the last signal that
            a worker received, its time, and the number of the worker's process.
        then: The user's own function to set up a worker.
    """

    def __init__(self, shared: Tensor, then: Callable[[int], None] | None) -> None:
        self.shared = shared
        self.then = then

    def __call__(self, worker_id: int) -> None:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if STACKS is not None:
            faulthandler.register(STACKS, file=2)  # works whatever the worker waits for
        if self.then is not None:
            self.then(worker_id)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.shared[_HANDLED_HERE]:
            os._exit(0)  # as torch's own handler does when the loader ends its workers
        self.shared[_HANDLED_HERE + 1 :] = torch.tensor(
            [number, time.monotonic(), os.getpid()], dtype=torch.float64
        )


def _is_free(number: signal.Signals, caught: int) -> bool:
    """Return whether the training may handle the signal. `None` is a handler from outside Python.

    Args:
        number: The signal.
        caught: The signals that have a handler, as a mask.
    """
    handler = signal.getsignal(number)
    if number.name in _BY_CLUSTERS:
        return handler == signal.SIG_DFL and not caught >> (number - 1) & 1
    return handler not in (signal.SIG_IGN, None)


def _caught() -> int:
    """Return the signals that have a handler, as a mask; 0 if the system does not say.

    Python does not know handlers that C code has set, such as that of `faulthandler.register`.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    return int(found[1], 16) if found else 0


def _shown(number: signal.Signals) -> str:
    return f"{number.name} (Ctrl-C)" if number == signal.SIGINT else number.name
