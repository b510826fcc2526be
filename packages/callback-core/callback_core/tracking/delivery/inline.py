"""`InlineDelivery`: delivers in the training's own thread."""

from __future__ import annotations

from time import monotonic, sleep

from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery.base import LocalDelivery


class InlineDelivery(LocalDelivery):
    """Runs a consumer in the training's thread, which waits for each call of the tracker."""

    def __init__(self, consumer: Consumer, open_limit: float) -> None:
        super().__init__(consumer, open_limit)
        self._not_before = 0.0

    def begin(self) -> None:
        """Nothing: `notify` delivers."""

    def notify(self) -> None:
        """Deliver what there is, unless a delivery failed a short while ago."""
        if not self.refused and monotonic() >= self._not_before:
            pause = self.attempt()
            self._not_before = monotonic() + pause if self.failure else 0.0

    def hurry(self) -> None:
        """Nothing: this thread is the one that waits."""

    def wait(self, deadline: float) -> None:
        """Deliver what is left."""
        while not (self.consumer.done or self.refused):
            pause = min(self.attempt(), self.retry_after)
            if self.consumer.is_idle:
                return
            if self.consumer.done or self.hopeless or monotonic() + pause > deadline:
                break
            sleep(pause)
        self.consumer.release()
