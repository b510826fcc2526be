"""`Consumer`: delivers the journal of a run to one tracker, and remembers how far it has come."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from time import monotonic
from typing import Any

from callback_core.tracking.folder import RunFolder
from callback_core.tracking.journal import Record, read
from callback_core.tracking.lock import FileLock
from callback_core.tracking.naming import SINGLE_VALUES, tracked_name
from callback_core.tracking.past import Past, last_begin
from callback_core.tracking.tracker import Opening, Point, Rejected, Status, Tracker, Upload
from callback_core.tracking.values import fitting_name, fitting_parameters, restored

logger = logging.getLogger(__name__)


class Abandoned(Exception):
    """The consumer was given up while its tracker did not come back."""


@dataclass
class Progress:
    """How far a tracker has come: what is kept in its file.

    Attributes:
        run_id: The tracker's run; `adopted` where it is the user's.
        offset: Bytes of the journal that are delivered.
        parameters: The parameters that the tracker was given last.
        left_out: What was cut or left out, and why.
        status: How the run was closed in the tracker; `None` while it is open.
    """

    run_id: str | None = None
    adopted: bool = False
    offset: int = 0
    parameters: dict[str, Any] | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    status: Status | None = None


class Consumer:
    """Delivers the journal of a run to a tracker.

    Args:
        tracker: Where to deliver to.
        folder: The folder of the run.
        name: Its name among the trackers of the run.
        run_id: The tracker's run, where it is known and stands in no file: from a checkpoint, or
            opened by the user.
        adopted: Whether it is the user's.

    Attributes:
        progress: How far it has come.
        doing: The call of the tracker that is under way, and since when, in monotonic seconds.
        delivered: How many points it has delivered.
        opened: Whether the run is open in the tracker.
        done: Whether the run has ended and everything is delivered.
    """

    def __init__(
        self,
        tracker: Tracker,
        folder: RunFolder,
        name: str,
        run_id: str | None = None,
        adopted: bool = False,
    ) -> None:
        self.tracker, self.folder, self.name = tracker, folder, name
        self.progress = Progress()
        self.reload()
        if run_id is not None:
            self.progress.run_id, self.progress.adopted = run_id, adopted
        self.doing: tuple[str, float] | None = None
        self.delivered = 0
        self.done = self.opened = False
        self._abandoned = self._ended = self._died = False
        self._lock: FileLock | None = None
        self._past: Past | None = None
        self._begin: dict[str, Any] = {}
        self._read_to = 0
        self._batches: dict[str, list[Point]] = {"metrics": [], "text": [], "summary": []}

    def deliver(self) -> None:
        """Deliver what is in the journal now.

        Raises:
            Abandoned: It has been given up.
            BlockingIOError: Somebody else delivers this run to this tracker.
            Exception: Whatever the tracker raised. The next call goes on from there.
        """
        if self._abandoned:
            raise Abandoned
        past = self._past or self._start()
        if not self._begin:
            return
        self._flush()
        for record in read(self.folder.journal, self._read_to):
            if record.start >= past.size and record.kind == "begin" and record.content["resumed"]:
                self._restart()  # what has been delivered since may be superseded
                return self.deliver()
            if past.counts(record):
                self._take(record, past)
            elif record.kind == "upload" and record.content["for"] == self.name:
                self._remove(record)
            self._read_to = record.end
            if record.kind != "logs":
                self._flush()
        self._flush()
        if self._died and not self._ended:
            self._open(past)
            self._close("failed")
            self._ended = True
        if self._ended:
            self.done = True
            self.release()

    def training_died(self) -> None:
        """Be told that the journal may end without saying how the training did: as failed."""
        self._died = True

    def pending(self) -> int:
        """Return how many points of the journal are not delivered."""
        past = Past(self.folder.journal, self.progress.offset, rewinds=False, opened=False)
        records = read(self.folder.journal, self.progress.offset)
        return sum(len(r.content["logs"]) for r in records if r.kind == "logs" and past.counts(r))

    @property
    def run_id(self) -> str | None:
        """The tracker's run, whichever process has opened it."""
        return self.progress.run_id or self.folder.read_progress(self.name).get("run_id")

    def introduce(self) -> None:
        """Write who the tracker is, for whoever delivers to it elsewhere."""
        kind = type(self.tracker)
        made_by = f"{kind.__module__}:{kind.__qualname__}"
        self.folder.write_tracker(self.name, made_by, self.tracker.settings())

    def reload(self) -> None:
        """Take over how far somebody else has come."""
        known = {entry.name for entry in fields(Progress)}
        kept = self.folder.read_progress(self.name)
        self.progress = replace(self.progress, **{k: v for k, v in kept.items() if k in known})

    def abandon(self) -> None:
        """Wait for the tracker no longer: whenever it comes back, nothing more is delivered."""
        self._abandoned = True
        self.release()

    def release(self) -> None:
        """Let others deliver this run to this tracker."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self._past = None

    def _start(self) -> Past:
        """Find out where to go on, alone."""
        self._lock = self._lock or FileLock(self.folder.lock_of(self.name))
        run_id, adopted = self.progress.run_id, self.progress.adopted
        self.reload()  # another may have gone on meanwhile
        progress = self.progress
        if run_id is not None:
            progress.run_id, progress.adopted = run_id, adopted
        begin = last_begin(self.folder.journal)
        past = Past(
            self.folder.journal, progress.offset, self.tracker.rewinds, progress.run_id is not None
        )
        if begin is not None:
            self._begin, self._past, self._read_to = begin.content, past, past.start
        return past

    def _restart(self) -> None:
        self._flush()
        if self.opened:
            self._close("failed")
        self._past = None

    def _take(self, record: Record, past: Past) -> None:
        """Deliver `record`, or keep it for a batch."""
        if record.kind == "logs":
            self._add(record, past)
            if max(map(len, self._batches.values())) >= self.tracker.limits.batch_size:
                self._read_to = record.end
                self._flush()
            return
        self._flush()
        if record.kind == "begin":
            self._begin = record.content
            self._open(past)
            self._log_parameters()
        elif record.kind == "upload" and record.content["for"] == self.name:
            self._open(past)
            self._upload(record)
        elif record.kind == "end":
            self._open(past)
            self._close(record.content["status"])
            self._ended = True

    def _add(self, record: Record, past: Past) -> None:
        content, limits = record.content, self.tracker.limits
        for name in content.get("left_out", ()):
            self.progress.left_out[name] = f"it is a {content['left_out'][name]}, not a number"
        for name, plain in content["logs"].items():
            news = past.news(name, restored(plain), record.step, content["time"])
            if news is None:
                continue
            value, time = news
            point = Point(
                fitting_name(tracked_name(name), limits),
                value,
                record.step,
                time,
                content.get("epoch"),
            )
            if isinstance(value, str) and not limits.text:
                self.progress.left_out[name] = "it is text"
            elif isinstance(value, str):
                self._batches["text"].append(point)
            elif value - value != 0 and not limits.non_finite:
                self.progress.left_out[name] = f"it was {value} at step {record.step}"
            else:
                single = name in SINGLE_VALUES
                self._batches["summary" if single else "metrics"].append(point)

    def _flush(self) -> None:
        """Deliver the batches, and note how far that is."""
        size = self.tracker.limits.batch_size
        for kind, points in self._batches.items():
            if points:
                self._open(self._past)
            while points:
                self._deliver_batch(f"log_{kind}", points[:size])
                del points[:size]
        if self._read_to > self.progress.offset:
            self.progress.offset = self._read_to
            self._save()

    def _deliver_batch(self, method: str, points: Sequence[Point]) -> None:
        try:
            self._call(method, getattr(self.tracker, method), points)
            self.delivered += len(points)
        except Rejected as error:
            if len(points) == 1:
                self.progress.left_out[points[0].name] = f"rejected: {error}"
            else:
                for point in points:
                    self._deliver_batch(method, [point])

    def _open(self, past: Past | None) -> None:
        if self.opened:
            return
        progress, begin = self.progress, self._begin
        opening = Opening(
            name=begin.get("run_name"),
            output_dir=self.folder.output_dir,
            folder=self.folder.of_tracker(self.name),
            run_id=progress.run_id,
            adopted=progress.adopted,
            step=begin["step"],
            rewind_to=None if past is None else past.rewind_to,
            trial_name=begin.get("trial_name"),
            trial_parameters=begin.get("trial_parameters"),
        )
        progress.run_id = self._call("open", self.tracker.open, opening)
        self.opened, self._ended, progress.status = True, False, None
        self._save()

    def _log_parameters(self) -> None:
        arguments, model_config = self._begin["arguments"], self._begin["model_config"]
        parameters, cut = fitting_parameters(
            self.tracker.parameters_of(arguments, model_config), self.tracker.limits
        )
        self.progress.left_out.update(cut)
        if parameters != self.progress.parameters:
            try:
                self._call("log_parameters", self.tracker.log_parameters, parameters)
            except Rejected as error:
                self.progress.left_out["parameters"] = f"rejected: {error}"
            self.progress.parameters = parameters

    def _upload(self, record: Record) -> None:
        name, path = record.content["name"], self.folder.path / record.content["path"]
        if not path.is_dir():
            self.progress.left_out[name] = "its files are gone"
            return
        try:
            self._call("log_files", self.tracker.log_files, Upload(path, name, record.step))
        except Rejected as error:
            self.progress.left_out[name] = f"rejected: {error}"
        self._remove(record)

    def _remove(self, record: Record) -> None:
        """Delete the copy of what was to be uploaded."""
        shutil.rmtree(self.folder.path / record.content["path"], ignore_errors=True)

    def _close(self, status: Status) -> None:
        if self.opened:
            self._call("close", self.tracker.close, None if self.progress.adopted else status)
        self.opened, self.progress.status = False, status
        self._save()

    def _call(self, name: str, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call the tracker, and let it be seen from outside that it is being called."""
        self.doing = (name, monotonic())
        try:
            return method(*arguments)
        finally:
            self.doing = None
            if self._abandoned:
                raise Abandoned

    def _save(self) -> None:
        self.folder.write_progress(self.name, asdict(self.progress))
