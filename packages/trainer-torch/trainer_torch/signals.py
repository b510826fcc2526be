"""SIGINT and SIGTERM in a training: it ends after the step that it is in."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Final

logger = logging.getLogger(__name__)

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Within `with`, keeps the first SIGINT or SIGTERM for the loop to act on between two steps.

    A second one ends the training at once. Only Python's main thread is sent signals; in another
    one this does nothing.

    Attributes:
        received: The signal that came to this process, if one did.
        due: The signal that the loop is to end by: the one that came, to whichever process.
        where: To which of several processes that one came.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.due: signal.Signals | None = None
        self.where = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        """Begin to keep signals."""
        self.received, self.due, self.where = None, None, ""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._keep) for number in SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave signals to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @property
    def reason(self) -> str:
        """Why the training ends."""
        return f"{self.due.name} was received{self.where}" if self.due else ""

    def raise_due(self) -> None:
        """End the training by the signal that is due.

        Raises:
            KeyboardInterrupt: It is SIGINT.
            SystemExit: It is SIGTERM; the exit code is 143, as the shell's for a process that it
                ended.
        """
        if self.due == signal.SIGINT:
            raise KeyboardInterrupt
        if self.due is not None:
            raise SystemExit(128 + self.due)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = signal.Signals(number)
        if again:
            self.due = self.received
            self.raise_due()
        logger.warning(
            "%s: training ends after this step; once more ends it at once.", self.received.name
        )
