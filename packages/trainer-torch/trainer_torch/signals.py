"""Handling of SIGINT and SIGTERM: the training ends after the current step."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Final

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """A context that records the first SIGINT or SIGTERM, for the loop to act on between steps.

    A second signal ends the training at once. Python delivers signals to the main thread only; in
    any other thread the context does nothing.

    Attributes:
        received: The signal that this process received, if any.
        due: The signal that the loop must end the training with. Any process may have received it.
        where: Which of several processes received it, as the end of a sentence.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.due: signal.Signals | None = None
        self.where = ""
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        """Install the handlers."""
        self.received, self.due, self.where = None, None, ""
        if threading.current_thread() is threading.main_thread():
            self._previous_handlers = {
                number: signal.signal(number, self._handle) for number in SIGNALS
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Restore the previous handlers."""
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers = {}

    @property
    def reason(self) -> str:
        """Why the training ends."""
        return f"{self.due.name} was received{self.where}" if self.due else ""

    def raise_due(self) -> None:
        """Raise what Python raises by default for the signal that is due.

        Raises:
            KeyboardInterrupt: The signal is SIGINT.
            SystemExit: The signal is SIGTERM. The exit code is 143, as a shell reports it.
        """
        if self.due == signal.SIGINT:
            raise KeyboardInterrupt
        if self.due is not None:
            raise SystemExit(128 + self.due)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_second = self.received is not None
        self.received = signal.Signals(number)
        if is_second:
            self.due = self.received
            self.raise_due()
        logger.warning(
            "Received %s: training ends after this step. Send it again to end at once.",
            self.received.name,
        )
