"""`Batches`: delivers points in batches, and finds those that a tracker does not take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from callback_core.tracking.calls import Abandoned, TrackerCalls
from callback_core.tracking.history import History
from callback_core.tracking.journal import Record
from callback_core.tracking.limits import change_of_name, distinct_name, shortened
from callback_core.tracking.naming import once_logged, tracked_name
from callback_core.tracking.objects import Objects
from callback_core.tracking.tracker import Point, Rejected, Tracker
from callback_core.tracking.values import restored

MOST_TRIES: Final = 5
"""After this many failures in a row, points are tried one by one, to find the one at fault."""


class Batches:
    """Gathers points, and delivers them in batches of the size that the tracker takes.

    Args:
        tracker: The tracker.
        calls: Calls its methods.
        left_out: Receives the names of what is cut or left out, each with the reason.
        name: The tracker's name in the session.
        objects: The values that the journal only notes, if this process trains.

    Attributes:
        delivered: How many points the tracker has taken.
    """

    def __init__(
        self,
        tracker: Tracker,
        calls: TrackerCalls,
        left_out: dict[str, str],
        name: str,
        objects: Objects | None = None,
    ) -> None:
        self._member, self._kept = name, objects
        self.delivered = 0
        self._calls, self._limits, self._left_out = calls, tracker.limits, left_out
        self._text: list[Point] = []
        self._metrics: list[Point] = []
        self._objects: list[Point] = []
        self._summary: list[Point] = []
        self._waiting = (
            (self._metrics, tracker.log_metrics),
            (self._text, tracker.log_text),
            (self._objects, tracker.log_objects),
            (self._summary, tracker.log_summary),
        )
        self._names: dict[str, str] = {}  # as logged -> as sent
        self._taken: set[str] = set()  # as sent
        self._singly = 0  # how many of the next points are delivered one by one
        self._failures = 0  # in a row
        self._refused: set[str] = set()

    def __bool__(self) -> bool:
        """Return whether there is a point."""
        return any(points for points, _ in self._waiting)

    @property
    def full(self) -> bool:
        """Whether there are enough points for a full batch."""
        return max(len(points) for points, _ in self._waiting) >= self._limits.batch_size

    def clear(self) -> None:
        """Forget all points."""
        for points, _ in self._waiting:
            points.clear()

    def know(self, names: Iterable[str]) -> None:
        """Name what is logged as `names`, in this order, unless it has a name.

        The order decides which of two names gets a number, so it is that of the whole journal.
        """
        for name in names:
            if name not in self._names:
                self._name_of(name)

    def add(self, record: Record, history: History) -> None:
        """Add the points of `record` that the tracker can take and does not have."""
        content, step = record.content, record.step
        is_summary, once = content.get("summary", False), once_logged(content["logs"])
        for name, what in content.get("left_out", {}).items():
            self._left_out[name] = f"it is {what}"
        for name, plain in content["logs"].items():
            unsent = history.value_to_send(name, restored(plain), step, content["time"])
            if unsent is None:
                continue
            value, time = unsent
            sent_as = self._names.get(name) or self._name_of(name)
            point = Point(sent_as, value, step, time, content.get("epoch"))
            if isinstance(value, str):
                self._add_text(name, point)
            elif value - value != 0 and not self._limits.non_finite:
                self._left_out[name] = f"it was {value} at step {step}"
            else:
                (self._summary if is_summary or name in once else self._metrics).append(point)
        self._add_objects(record)

    def _add_text(self, name: str, point: Point) -> None:
        """Add a point whose value is a string, if the tracker takes text."""
        if not self._limits.text:
            self._left_out[name] = "it is text"
            return
        text = shortened(point.value, self._limits.text_length)
        if text != point.value:
            self._left_out[name] = f"cut to {self._limits.text_length} characters"
        self._text.append(point._replace(value=text))

    def _add_objects(self, record: Record) -> None:
        content = record.content
        for name, noted in content.get("objects", {}).items():
            value = None
            if self._kept is not None and self._member in noted["for"]:
                value = self._kept.take(noted["number"], self._member)
            if value is not None:
                sent_as = self._names.get(name) or self._name_of(name)
                epoch = content.get("epoch")
                self._objects.append(Point(sent_as, value, record.step, content["time"], epoch))
            elif self._member in noted["for"]:
                self._left_out[name] = "it was only in the memory of the process that trained"
            else:
                self._left_out[name] = f"it is {noted['what']}"

    def deliver(self) -> None:
        """Deliver all points. After an error of the tracker, the next call continues from there."""
        for points, method in self._waiting:
            while points:
                self._deliver_some(method, points)

    def _deliver_some(self, method: Callable[..., Any], points: list[Point]) -> None:
        """Deliver a batch from the front of `points`, and remove what need not be sent again."""
        batch = points[: 1 if self._singly else self._limits.batch_size]
        try:
            self._calls(method, batch)
            self.delivered += len(batch)
        except Rejected as error:
            if len(batch) > 1:  # find the one at fault
                self._singly = len(batch)
                return
            self._left_out[batch[0].name] = f"rejected: {error}"
        except Abandoned:
            raise
        except Exception as error:
            self._failures += 1
            if self._failures < MOST_TRIES and self._refused.isdisjoint(p.name for p in batch):
                raise
            self._failures = MOST_TRIES
            if len(batch) > 1:
                self._singly = len(batch)
                return
            if not self._takes(method, points[1:2]):
                raise
            del points[1]
            if not self._takes(method, batch):  # others go through, this one does not
                self._refused.add(batch[0].name)
                self._left_out[batch[0].name] = f"failed: {type(error).__name__}: {error}"
        del points[: len(batch)]
        self._singly = max(0, self._singly - len(batch))
        if not self._singly:
            self._failures = 0

    def _takes(self, method: Callable[..., Any], points: Sequence[Point]) -> bool:
        """Return whether the tracker takes `points`, which shows that not everything fails."""
        if not points:
            return False
        try:
            self._calls(method, points)
        except Abandoned:
            raise
        except Exception:
            return False
        self.delivered += len(points)
        return True

    def _name_of(self, name: str) -> str:
        """Return the name under which points logged as `name` are sent."""
        tracked = tracked_name(name)
        sent_as = self._names[name] = distinct_name(tracked, self._limits, self._taken)
        self._taken.add(sent_as)
        if why := change_of_name(tracked, sent_as, self._limits):
            self._left_out[name] = why
        return sent_as
