"""Handling of signals that ask the training to stop: it ends after the current step."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.data import DataLoader

logger = logging.getLogger(__name__)

_BY_PEOPLE_AND_CLUSTERS: Final = ("SIGINT", "SIGTERM")

_BY_CLUSTERS: Final = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""Sent before a job is killed, as the job asks the cluster to. By default each kills at once."""

SIGNALS: Final = tuple(
    getattr(signal, name)
    for name in (*_BY_PEOPLE_AND_CLUSTERS, *_BY_CLUSTERS)
    if hasattr(signal, name)  # Windows has only the first two
)

_SAME_DELIVERY: Final = 1.0
"""Seconds. A signal that comes again so soon is the same request to stop.

Clusters and launchers deliver one several times: to the process group, and to each process.
"""


class Signals:
    """A context that records the first signal to stop, for the loop to act on between steps.

    These are SIGINT and SIGTERM, and signals that clusters send before they kill a job: SIGHUP,
    SIGUSR1, SIGUSR2 and SIGXCPU. The latter belong to the program if it handles them itself. A
    signal that the program ignores stays ignored, and its own handler of SIGINT or SIGTERM is
    called too.

    A second signal, later than a second after the first, ends the training at once. But while the
    last checkpoint is saved, only SIGINT does. Python delivers signals to the main thread only; in
    any other thread the context does nothing.

    Args:
        clock: Returns the seconds since some point in time.

    Attributes:
        received: The signal that this process received, if any.
        due: The signal that the loop must end the training with. Any process may have received it.
        where: Which of several processes received it, as the end of a sentence.
        is_saving: Whether the checkpoint is being saved with which the training ends.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.received: signal.Signals | None = None
        self.due: signal.Signals | None = None
        self.where = ""
        self.is_saving = False
        self._clock = clock
        self._received_at = 0.0
        self._previous_handlers: dict[signal.Signals, Any] = {}
        self._handled_here: Tensor | None = None  # shared with the workers of data loaders

    def __enter__(self) -> Signals:
        """Install the handlers."""
        self.received, self.due, self.where, self.is_saving = None, None, "", False
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {
                number: signal.signal(number, self._handle)
                for number in SIGNALS
                if _is_free(number)
            }
        self._tell_workers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Restore the previous handlers, and act on a signal that the loop has not seen."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}
        self._tell_workers()
        if error is None and self.received is not None:
            self.due = self.received
            self.raise_due()

    @property
    def reason(self) -> str:
        """Why the training ends."""
        return f"{_shown(self.due)} was received{self.where}" if self.due else ""

    def raise_due(self) -> None:
        """Raise what Python raises by default for the signal that is due.

        Raises:
            KeyboardInterrupt: The signal is SIGINT.
            SystemExit: It is another one. The exit code is 128 + its number, as a shell reports it.
        """
        if self.due == signal.SIGINT:
            raise KeyboardInterrupt
        if self.due is not None:
            raise SystemExit(128 + self.due)

    def protect_workers(self, dataloader: Any) -> None:
        """Make the workers of `dataloader` leave signals to this process while it handles them.

        Ctrl-C and clusters also reach the workers. Without this they end at once, and the training
        with them, in the middle of a step.
        """
        if not (isinstance(dataloader, DataLoader) and dataloader.num_workers):
            return
        if self._handled_here is None:
            self._handled_here = torch.zeros(1, dtype=torch.bool).share_memory_()
        given = dataloader.worker_init_fn
        if isinstance(given, _WorkerInit):
            given = given.then
        dataloader.worker_init_fn = _WorkerInit(self._handled_here, given)
        self._tell_workers()

    def _tell_workers(self) -> None:
        if self._handled_here is not None:
            self._handled_here.fill_(bool(self._previous_handlers))

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = self._clock()
        if self.received is None:
            self.received, self._received_at = signal.Signals(number), now
            logger.warning(
                "Received %s: training ends after this step, and after an evaluation or a "
                "checkpoint that is due at it. Send the signal again to end at once.",
                _shown(self.received),
            )
        elif now - self._received_at > _SAME_DELIVERY and (
            number == signal.SIGINT or not self.is_saving
        ):
            self.received = self.due = signal.Signals(number)
            self.raise_due()
        previous = self._previous_handlers.get(signal.Signals(number))
        if callable(previous) and previous is not signal.default_int_handler:
            previous(number, frame)


class _WorkerInit:
    """Sets up the worker of a data loader: an interrupt is for the training's process.

    Args:
        handled_there: Whether that process handles signals now. It is in shared memory.
        then: The user's own function to set up a worker.
    """

    def __init__(self, handled_there: Tensor, then: Callable[[int], None] | None) -> None:
        self.handled_there = handled_there
        self.then = then

    def __call__(self, worker_id: int) -> None:
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._handle)
        if self.then is not None:
            self.then(worker_id)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.handled_there.item():
            os._exit(0)  # as torch's own handler does when the loader ends its workers


def _is_free(number: signal.Signals) -> bool:
    """Return whether the training may handle the signal. Others than Python set `None`."""
    handler = signal.getsignal(number)
    if number.name in _BY_CLUSTERS:
        return handler == signal.SIG_DFL
    return handler not in (signal.SIG_IGN, None)


def _shown(number: signal.Signals) -> str:
    return f"{number.name} (Ctrl-C)" if number == signal.SIGINT else number.name
