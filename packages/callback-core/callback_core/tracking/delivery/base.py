"""`Delivery`: runs a consumer; and `LocalDelivery`, which runs it in this process."""

from __future__ import annotations

import logging
import sys
from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Final, Literal, get_args

from callback_core.integrations import NotConfigured
from callback_core.tracking.calls import Abandoned
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.lock import Held
from callback_core.tracking.retry import backoff
from callback_core.tracking.tracker import Rejected

logger = logging.getLogger(__name__)

DeliveryKind = Literal["thread", "inline", "process"]
DELIVERY_KINDS: Final = get_args(DeliveryKind)

LONGEST_PAUSE: Final = 30.0
"""The most seconds between two attempts at a tracker that keeps failing."""

_MOST_NAMED: Final = 5

_ANNOUNCED: Final[set[str]] = set()
"""The addresses of runs that this process has printed."""


class DeliveryState(Enum):
    """Where a delivery stands. `docs/architecture.md` has the diagram."""

    WAITING = auto()
    """It has not started: until the first epoch, a callback may still name a secret."""
    RUNNING = auto()
    FINISHED = auto()
    """It ended: the tracker has everything, or the time to wait for it is over."""
    GIVEN_UP = auto()
    """It ended in a call of the tracker that did not return, and may never return."""


class Delivery(ABC):
    """Runs a consumer.

    Args:
        consumer: What delivers.
        open_limit: Seconds after which nobody waits any longer for a run that does not open.

    Attributes:
        state: Where it stands.
        failure: Why the tracker takes nothing at the moment; `None` if the last attempt worked.
        refused: Whether the tracker will never open its run, so that it is not asked again.
    """

    def __init__(self, consumer: Consumer, open_limit: float) -> None:
        self.consumer = consumer
        self.open_limit = open_limit
        self.state = DeliveryState.WAITING
        self.failure: str | None = None
        self.refused = False

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is delivered, even if something is missing."""
        return self.state in (DeliveryState.FINISHED, DeliveryState.GIVEN_UP)

    def start(self) -> None:
        """Start to deliver."""
        self.state = DeliveryState.RUNNING
        try:
            self.consumer.run.write_identity()
        except OSError as error:
            logger.warning("Could not save how to reach %s later: %s.", self.consumer.name, error)
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Begin the delivery; `start` calls this."""

    @abstractmethod
    def notify(self) -> None:
        """Look for new records. The training's thread calls this."""

    def wait_for_run(self, seconds: float) -> bool:
        """Wait until an attempt to open the run is over, and return whether it is.

        A delivery that opens no run in a thread of this process does not wait.
        """
        return True

    @abstractmethod
    def hurry(self) -> None:
        """Retry at once and often: the training has ended, and its thread may be waiting."""

    @abstractmethod
    def wait(self, deadline: float) -> None:
        """Return when everything is delivered, or at `deadline`, in monotonic seconds.

        At the deadline, the delivery is abandoned. A run that stays open for evaluations is not.
        """

    def finish(self, deadline: float) -> None:
        """Wait until everything is delivered, but not beyond `deadline`, and end the delivery."""
        self.consumer.close_run()
        self.wait(deadline)
        if self.state is DeliveryState.RUNNING:
            self.state = DeliveryState.FINISHED

    def announce(self) -> None:
        """Print the address of the run's page once, on standard error, unless the SDK prints it."""
        url = self.consumer.run.progress.run_url
        if url is None or url in _ANNOUNCED or self.consumer.tracker.prints_url:
            return
        _ANNOUNCED.add(url)
        line = f"{self.consumer.name}: {url}"
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
        if tqdm is None:
            print(line, file=sys.stderr, flush=True)
        else:  # above a progress bar, not through it
            tqdm.write(line, file=sys.stderr)

    def shortfall(self) -> str | None:
        """Return in one line what the tracker lacks; `None` if it has everything."""
        consumer, parts = self.consumer, []
        if not consumer.done:
            why = f" ({self.failure})" if self.failure else ""
            pending = consumer.pending()
            what = f"has not got {pending:,} points" if pending else "has not closed its run"
            parts.append(
                f"{consumer.name} {what}{why}: python -m callback_core.tracking.replay "
                f"'{consumer.folder.output_dir}' delivers what is pending"
            )
        left_out = consumer.run.progress.left_out
        if left_out:
            named = [f"{name}: {why}" for name, why in list(left_out.items())[:_MOST_NAMED]]
            more = f" and {len(left_out) - _MOST_NAMED} more" if len(left_out) > _MOST_NAMED else ""
            parts.append(f"{consumer.name} did not take all ({'; '.join(named)}{more})")
        return "; ".join(parts) or None


class LocalDelivery(Delivery):
    """Runs a consumer in this process, and pauses longer after each failure in a row.

    Args:
        consumer: What delivers.
        open_limit: Seconds after which nobody waits any longer for a run that does not open.
        longest_pause: The most seconds between two attempts at a tracker that keeps failing.

    Attributes:
        hopeless: Whether the last attempt failed for lack of a module or a setting, or was refused,
            so that it is useless to wait.
        retry_after: Seconds between two attempts while somebody waits.
    """

    def __init__(
        self, consumer: Consumer, open_limit: float, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        super().__init__(consumer, open_limit)
        self.hopeless = False
        limits = consumer.tracker.limits
        self.retry_after, self._deliver_every = limits.retry_after, limits.deliver_every
        self._longest_pause = longest_pause
        self._failures = 0  # in a row
        self._has_warned = False

    def attempt(self, *, only_logs: bool = False) -> float:
        """Deliver what there is, and return the seconds until the next attempt.

        Args:
            only_logs: Stop before anything that may take long.

        Raises:
            Abandoned: Nobody waits for the tracker any longer.
        """
        self.hopeless = False  # what was missing may be there by now
        try:
            self.consumer.deliver(only_logs=only_logs)
        except Abandoned:
            raise
        except Held as error:  # another process delivers to the tracker, and will end
            self.failure = str(error)
            return self._deliver_every
        except Rejected as error:
            self.failure = f"{type(error).__name__}: {error}"
            self.refused = self.hopeless = True
            self.consumer.release()
            logger.warning(
                "%s refuses to open its run: %s. Training continues; its logs are kept.",
                self.consumer.name,
                error,
            )
            return self._longest_pause
        except Exception as error:
            self._failures += 1
            self.failure = f"{type(error).__name__}: {error}"
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "Delivery to %s failed. Training continues; the delivery is retried.",
                    self.consumer.name,
                    exc_info=error,
                )
            # Set last: the training's thread, which may be waiting, then reports the failure too.
            self.hopeless = isinstance(error, ImportError | NotConfigured)
            return backoff(self._failures, self.retry_after, self._longest_pause)
        self._failures, self.failure = 0, None
        self.announce()
        return self._deliver_every
