"""`Member`: a tracker that takes part in a session; and its `DeliveryOptions`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery.base import (
    DELIVERY_KINDS,
    Delivery,
    DeliveryKind,
    DeliveryState,
)
from callback_core.tracking.delivery.inline import InlineDelivery
from callback_core.tracking.delivery.process import ProcessDelivery
from callback_core.tracking.delivery.thread import ThreadDelivery
from callback_core.tracking.tracker import Tracker
from callback_core.tracking.tracker_run import TrackerRun

logger = logging.getLogger(__name__)


@dataclass
class DeliveryOptions:
    """How a session delivers to one tracker.

    Attributes:
        delivery: `thread`, `process` or `inline`.
        open_limit: Seconds after which nobody waits any longer for a run that does not open.
        flush_limit: Seconds that the end of training waits for the tracker.
        redact: Names of arguments and logs whose values are secrets, for all trackers of a session.

    Raises:
        ValueError: A limit is negative, `delivery` is none of the three, or `redact` is a string.
    """

    delivery: DeliveryKind = "thread"
    open_limit: float = 60.0
    flush_limit: float = 30.0
    redact: Iterable[str] = ()

    def __post_init__(self) -> None:
        if self.delivery not in DELIVERY_KINDS:
            raise ValueError(
                f"delivery is {self.delivery!r}, it must be one of: {', '.join(DELIVERY_KINDS)}."
            )
        for name in ("open_limit", "flush_limit"):
            limit = getattr(self, name)
            if not limit >= 0:
                raise ValueError(f"{name} is {limit!r}, it must be seconds, 0 or more.")
        if isinstance(self.redact, str):
            raise ValueError(f"redact is {self.redact!r}, it must be a list of names.")
        self.redact = tuple(self.redact)


class Member:
    """A tracker that takes part in a session.

    Attributes:
        name: Its name in the session: the tracker's, with a number if that is taken.
        tracker: The tracker.
        options: How the session delivers to it.
        delivery: The delivery to it.
    """

    def __init__(
        self, name: str, tracker: Tracker, options: DeliveryOptions, consumer: Consumer
    ) -> None:
        self.name, self.tracker, self.options = name, tracker, options
        # A delivery imports it too, but later.
        self._is_awaited = tracker.sdk in sys.modules
        self.delivery = self._delivery_of(consumer)

    @property
    def run_id(self) -> str | None:
        """The run in the tracker; `None` as long as nobody opened it."""
        return self.delivery.consumer.run.id

    def takes(self, value: Any) -> bool:
        """Return whether the tracker takes a value that only this process has."""
        return not isinstance(self.delivery, ProcessDelivery) and self.tracker.takes(value)

    @property
    def run_url(self) -> str | None:
        """The address of the run's page; `None` if it has none, or is not open yet."""
        return self.delivery.consumer.run.url

    @property
    def has_started(self) -> bool:
        """Whether the delivery has started, so that the run is open or about to be opened."""
        return self.delivery.state is not DeliveryState.WAITING

    @property
    def is_served(self) -> bool:
        """Whether the session still delivers to the tracker."""
        return not (self.delivery.has_ended or self.delivery.consumer.done)

    def notify(self) -> None:
        """Deliver the new records, and start to do so if necessary."""
        if not self.has_started:
            self.delivery.start()
        self.delivery.notify()

    def wait_for_run(self) -> None:
        """Wait once, a short while, for the run if the program may add to it with the SDK's calls.

        Otherwise, what the program logs at the first steps would not reach the run.
        """
        if self._is_awaited:
            self._is_awaited = False
            limit = min(self.tracker.longest_wait, self.options.open_limit)
            if not self.delivery.wait_for_run(limit):
                logger.warning(
                    "%s has not opened its run in the first %g s. Training begins. Until the run "
                    "is open, the program's own calls of %s do not reach it.",
                    self.name,
                    limit,
                    self.tracker.sdk,
                )

    def stays_open(self, deadline: float) -> bool:
        """Wait until all is delivered, and return whether the run stays open for more.

        Args:
            deadline: When to stop waiting, in monotonic seconds.
        """
        if self.delivery.state is DeliveryState.RUNNING:
            self.delivery.wait(deadline)
        return self.delivery.consumer.stays_open

    def reopen(self, *, training: bool = False) -> None:
        """Prepare to deliver what is logged after the delivery ended.

        Args:
            training: Whether a training follows. Otherwise, evaluations follow.
        """
        if self.delivery.refused:
            return
        consumer = self.delivery.consumer
        if not (consumer.done or consumer.stays_open):  # it was abandoned
            self.tracker = self.usable_tracker()
            run = TrackerRun(self.tracker, consumer.folder, consumer.name)
            consumer = Consumer(run, consumer.objects)
        was_open = consumer.stays_open
        if training:
            consumer.continue_with_training()
        else:
            consumer.continue_after_end()
        if was_open:
            self.delivery.hurry()
        else:
            self.delivery = self._delivery_of(consumer)

    def usable_tracker(self) -> Tracker:
        """Return the tracker; an equal new one if a call never returned and settings allow it."""
        settings = self.tracker.settings()
        hangs = self.delivery.state is DeliveryState.GIVEN_UP
        return type(self.tracker)(**settings) if hangs and settings is not None else self.tracker

    def _delivery_of(self, consumer: Consumer) -> Delivery:
        kind, open_limit = self.options.delivery, self.options.open_limit
        if kind == "process" and not consumer.run.progress.adopted:
            return ProcessDelivery(consumer, open_limit)
        if kind == "inline":
            return InlineDelivery(consumer, open_limit)
        return ThreadDelivery(consumer, open_limit)
