"""How a consumer runs beside the training: in a thread, or in the training's own."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from threading import Event, Thread
from time import monotonic
from typing import Final, Literal, get_args

from callback_core.integrations import NotConfigured
from callback_core.tracking.batches import Abandoned
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.lock import Held

logger = logging.getLogger(__name__)

DeliveryKind = Literal["thread", "inline", "process"]
DELIVERY_KINDS: Final = get_args(DeliveryKind)

LONGEST_PAUSE: Final = 30.0

_MOST_NAMED: Final = 5

_HANGS_AFTER: Final = 1.0
"""Seconds after which a call is what a tracker that fails is given up for, and not its failure."""


class Delivery(ABC):
    """Runs a consumer.

    Args:
        consumer: What delivers.
        open_limit: Seconds after which a run that does not open is waited for no longer.

    Attributes:
        started: Whether it has begun.
        finished: Whether it is over, be it that everything is delivered or that it was given up.
        given_up: Whether a call of the tracker never came back.
        failure: What keeps it from delivering.
    """

    def __init__(self, consumer: Consumer, open_limit: float) -> None:
        self.consumer = consumer
        self.open_limit = open_limit
        self.started = self.finished = self.given_up = False
        self.failure: str | None = None

    def start(self) -> None:
        """Begin to deliver."""
        self.started = True
        try:
            self.consumer.introduce()
        except OSError as error:
            logger.warning(
                "How %s can be delivered to later cannot be written: %s.", self.consumer.name, error
            )
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Do what there is to do first."""

    @abstractmethod
    def poke(self) -> None:
        """Be told, in the training's thread, that there may be something new."""

    @abstractmethod
    def hurry(self) -> None:
        """Be told that the training has ended, so that somebody waits."""

    @abstractmethod
    def wait(self, deadline: float) -> None:
        """Return when everything is delivered, or at `deadline`, in monotonic seconds."""

    def finish(self, deadline: float) -> None:
        """Wait until everything is delivered, but not beyond `deadline`, and end it."""
        self.wait(deadline)
        self.finished = True

    def trouble(self) -> str | None:
        """Return in a line what the tracker has not got; `None` where that is nothing."""
        consumer, said = self.consumer, []
        if not consumer.done:
            why = f" ({self.failure})" if self.failure else ""
            pending = consumer.pending()
            what = f"has not got {pending:,} points" if pending else "has not closed its run"
            said.append(
                f"{consumer.name} {what}{why}: python -m callback_core.tracking.replay "
                f"'{consumer.folder.output_dir}' delivers what is pending"
            )
        left_out = consumer.progress.left_out
        if left_out:
            named = [f"{name}: {why}" for name, why in list(left_out.items())[:_MOST_NAMED]]
            more = f" and {len(left_out) - _MOST_NAMED} more" if len(left_out) > _MOST_NAMED else ""
            said.append(f"{consumer.name} did not take all ({'; '.join(named)}{more})")
        return "; ".join(said) or None


class Attempts:
    """Tries to deliver, waits longer after each failure in a row, and logs the first.

    Args:
        consumer: What delivers.
        longest_pause: Seconds between two attempts at a tracker that keeps failing, at most.

    Attributes:
        failure: Why the last one failed; `None` where it did not.
        hopeless: Whether that was a module or a setting that is missing, and none is under way.
        retry_after: Seconds between two attempts when somebody waits.
    """

    def __init__(self, consumer: Consumer, longest_pause: float = LONGEST_PAUSE) -> None:
        self.failure: str | None = None
        self.hopeless = False
        limits = consumer.tracker.limits
        self.retry_after, self._every = limits.retry_after, limits.deliver_every
        self._consumer, self._longest_pause = consumer, longest_pause
        self._in_a_row = 0
        self._said = False

    def deliver(self) -> float:
        """Deliver what there is, and return after how many seconds to try again.

        Raises:
            Abandoned: Nobody waits for it any longer.
        """
        self.hopeless = False  # what was missing may be there by now
        try:
            self._consumer.deliver()
        except Abandoned:
            raise
        except Held as error:  # another delivers to it, and gives up or comes to an end
            self.failure = str(error)
            return self._every
        except Exception as error:
            self._in_a_row += 1
            self.failure = f"{type(error).__name__}: {error}"
            if not self._said:
                self._said = True
                logger.warning(
                    "%s does not take what it is given. Training goes on; it is tried again.",
                    self._consumer.name,
                    exc_info=error,
                )
            # Last: the training's thread, which may be waiting, then says the end with the reason.
            self.hopeless = isinstance(error, ImportError | NotConfigured)
            return min(self._longest_pause, self.retry_after * 2.0 ** min(self._in_a_row - 1, 16))
        self._in_a_row, self.failure = 0, None
        return self._every


class ThreadDelivery(Delivery):
    """Runs a consumer in a thread, which nobody waits for beyond a deadline."""

    def __init__(
        self, consumer: Consumer, open_limit: float, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        super().__init__(consumer, open_limit)
        self._attempts = Attempts(consumer, longest_pause)
        self._wake = Event()
        self._thread = Thread(target=self._run, name=f"deliver to {consumer.name}", daemon=True)
        self._ending = self._said_slow = False

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def poke(self) -> None:
        """Say, once, that the run does not open."""
        if not self._said_slow and self._does_not_open():
            self._said_slow = True
            logger.warning(
                "%s has not opened its run in %g s. Training goes on; what it logs is kept.",
                self.consumer.name,
                self.open_limit,
            )

    def hurry(self) -> None:
        """Try again now, and from now on more often."""
        self._ending = True
        self._wake.set()

    def wait(self, deadline: float) -> None:
        """Wait for the thread. One that does not come back is left alone."""
        self.hurry()
        while self._thread.is_alive() and monotonic() < deadline and not self._is_in_vain():
            self._thread.join(min(0.1, max(0.0, deadline - monotonic())))
        if self._thread.is_alive():
            doing = self.consumer.doing
            self.given_up = doing is not None
            self.failure = self._attempts.failure
            if doing is not None:
                since = monotonic() - doing[1]
                if self.failure is None or since >= _HANGS_AFTER:  # else it was just tried again
                    self.failure = f"{doing[0]} has not come back for {since:.0f} s"
            self.consumer.abandon()
            self._wake.set()  # a thread that waits to try again ends now

    @property
    def hopeless(self) -> bool:
        """Whether a module or a setting is missing, for which nobody needs to wait."""
        return self._attempts.hopeless

    def _is_in_vain(self) -> bool:
        return self.hopeless or self._does_not_open()

    def _does_not_open(self) -> bool:
        doing = self.consumer.doing
        return doing is not None and doing[0] == "open" and monotonic() - doing[1] > self.open_limit

    def _run(self) -> None:
        while not self.consumer.done:
            try:
                pause = self._attempts.deliver()
            except Abandoned:
                self.consumer.release()  # which it may have taken meanwhile
                return
            if not self.consumer.done:
                soon = min(pause, self._attempts.retry_after)
                self._wake.wait(soon if self._ending else pause)
                self._wake.clear()


class InlineDelivery(Delivery):
    """Runs a consumer in the training's thread, which waits for each call of the tracker."""

    def __init__(self, consumer: Consumer, open_limit: float) -> None:
        super().__init__(consumer, open_limit)
        self._attempts = Attempts(consumer)
        self._not_before = 0.0

    def begin(self) -> None:
        """Nothing: what there is, is delivered by `poke`."""

    def poke(self) -> None:
        """Deliver what there is, unless that failed a short while ago."""
        if monotonic() >= self._not_before:
            pause = self._attempts.deliver()
            self._not_before = monotonic() + pause if self._attempts.failure else 0.0

    def hurry(self) -> None:
        """Nothing: who waits is this thread."""

    def wait(self, deadline: float) -> None:
        """Deliver what is left."""
        while not self.consumer.done:
            pause = min(self._attempts.deliver(), self._attempts.retry_after)
            in_vain = self._attempts.hopeless or monotonic() + pause > deadline
            if self.consumer.done or in_vain:
                break
            Event().wait(pause)
        self.failure = self._attempts.failure
        self.consumer.release()
