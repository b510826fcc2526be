"""`ThreadDelivery`: delivers in a thread beside the training."""

from __future__ import annotations

import logging
from threading import Event, Lock, Thread
from time import monotonic, sleep
from typing import Final

from callback_core.tracking.calls import Abandoned
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery.base import LONGEST_PAUSE, DeliveryState, LocalDelivery

logger = logging.getLogger(__name__)

_HANGS_AFTER: Final = 1.0
"""Seconds. A call that takes longer is reported instead of the failure of the attempt before."""

_POLL: Final = 0.01
"""Seconds between two looks at a delivery for which the training waits."""

_LONGEST_TURN: Final = 0.5
"""Seconds that the training's thread waits to deliver logs, while the other thread delivers."""


class ThreadDelivery(LocalDelivery):
    """Runs a consumer in a thread, for which nobody waits beyond a deadline.

    If the tracker is `in_order`, the training's own thread delivers the logs.
    """

    def __init__(
        self, consumer: Consumer, open_limit: float, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        super().__init__(consumer, open_limit, longest_pause)
        self._turn = Lock()
        self._wake = Event()
        self._thread = Thread(target=self._run, name=f"deliver to {consumer.name}", daemon=True)
        self._hurries = self._has_warned_of_opening = False

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def notify(self) -> None:
        """Warn once if the run does not open. The thread finds new records by itself.

        If the tracker is `in_order`, deliver the new logs here, before the program logs again.
        """
        if not self._has_warned_of_opening and self._hangs_in_open():
            self._has_warned_of_opening = True
            trouble = self.consumer.run.calls.trouble
            logger.warning(
                "%s has not opened its run in %g s%s. Training continues; its logs are kept.",
                self.consumer.name,
                self.open_limit,
                f" ({trouble})" if trouble else "",
            )
        consumer = self.consumer
        if consumer.tracker.in_order and consumer.is_open and self.failure is None:
            self._deliver_logs()

    def wait_for_run(self, seconds: float) -> bool:
        """Wait until the run is open or an attempt to open it fails, and return whether it did."""
        deadline = monotonic() + seconds
        while not self.consumer.is_open and self._thread.is_alive() and self.failure is None:
            if monotonic() >= deadline:
                return False
            sleep(_POLL)
        return True

    def hurry(self) -> None:
        """Wake the thread, and have it retry often."""
        self._hurries = True
        self._wake.set()

    def wait(self, deadline: float) -> None:
        """Wait for the thread. A call that does not return is abandoned."""
        self.hurry()
        while self._thread.is_alive() and monotonic() < deadline and not self._waits_in_vain():
            if self.consumer.is_idle:
                return
            self._thread.join(min(_POLL, max(0.0, deadline - monotonic())))
        if not self._thread.is_alive():
            return
        running = self.consumer.run.calls.running()
        if running is not None:
            self.state = DeliveryState.GIVEN_UP
            method, seconds = running
            if self.failure is None or seconds >= _HANGS_AFTER:  # else it was just tried again
                trouble = self.consumer.run.calls.trouble
                self.failure = f"{method} has not returned for {seconds:.0f} s"
                self.failure += f": {trouble}" if trouble else ""
        self.consumer.abandon()
        self._wake.set()  # ends a thread that pauses

    def _deliver_logs(self) -> None:
        """Deliver new logs in the training's thread, unless the other thread is uploading."""
        if self._turn.acquire(timeout=_LONGEST_TURN):
            try:
                self.attempt(only_logs=True)
            except Abandoned:
                pass
            finally:
                self._turn.release()

    def _waits_in_vain(self) -> bool:
        return self.hopeless or self._hangs_in_open()

    def _hangs_in_open(self) -> bool:
        running = self.consumer.run.calls.running()
        return running is not None and running[0] == "open" and running[1] > self.open_limit

    def _run(self) -> None:
        while not (self.consumer.done or self.refused):
            try:
                with self._turn:
                    pause = self.attempt()
            except Abandoned:
                self.consumer.release()  # the lock, which it may have taken meanwhile
                return
            if not self.consumer.done:
                pause = min(pause, self.retry_after) if self._hurries else pause
                self._wake.wait(None if self.consumer.is_idle else pause)
                self._wake.clear()
