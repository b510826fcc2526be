"""`Consumer`: delivers the journal of a run to one tracker, and remembers how far it has come."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from time import monotonic
from typing import Any

from callback_core.tracking.batches import MOST_TRIES, Abandoned, Batches
from callback_core.tracking.folder import RunFolder
from callback_core.tracking.journal import DAMAGED, Record, read
from callback_core.tracking.lock import FileLock
from callback_core.tracking.past import Past, last_records
from callback_core.tracking.progress import Progress
from callback_core.tracking.tracker import Opening, Rejected, Status, Tracker, Upload
from callback_core.tracking.values import fitting_parameters

logger = logging.getLogger(__name__)


class Consumer:
    """Delivers the journal of a run to a tracker.

    Args:
        tracker: Where to deliver to.
        folder: The folder of the run.
        name: Its name among the trackers of the run.
        run_id: The tracker's run, if a checkpoint knows it or the user has opened it; `None` takes
            that of the run's files.
        adopted: Whether it is the user's.

    Attributes:
        progress: How far it has come.
        doing: The call of the tracker that is under way, and since when, in monotonic seconds.
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
        if run_id is None and self.progress.run_id is None:  # nobody has opened it so far
            known = folder.read_tracker(name)
            run_id, adopted = known.get("run_id"), known.get("adopted", False)
        if run_id is not None:
            self.progress.run_id, self.progress.adopted = run_id, adopted
        self.doing: tuple[str, float] | None = None
        self.done = self.opened = False
        self._abandoned = self._ended = self._rewound = self._owes_parameters = False
        self._ended_as: Status | None = None
        self._lock: FileLock | None = None
        self._past: Past | None = None
        self._begin: dict[str, Any] = {}
        self._read_to = 0
        self._batches = Batches(tracker, self._call, self.progress.left_out)
        self._failures = 0  # to take the parameters, in a row
        self._said_unsaved = False

    def deliver(self) -> None:
        """Deliver what is in the journal now.

        Raises:
            Abandoned: It has been given up.
            Held: Somebody else delivers this run to this tracker.
            Exception: Whatever the tracker raised. The next call goes on from there.
        """
        if self._abandoned:
            raise Abandoned
        ended_as = self._ended_as  # before the journal is read, which then is whole
        past = self._past or self._start()
        if not self._begin:
            return
        for record in read(self.folder.journal, self._read_to):
            if record.start >= past.size and record.kind == "begin" and record.content["resumed"]:
                self._restart()  # what has been delivered since may be superseded
                return self.deliver()
            if past.counts(record):
                self._take(record, past)
            else:
                self._pass_over(record)
            self._read_to = record.end
            if record.kind != "logs":
                self._flush()
        self._flush()
        if ended_as is not None and not self._ended:
            self._open(past)
            self._close(ended_as)
            self._ended = True
        if self._ended:
            self.done = True
            self.release()

    @property
    def delivered(self) -> int:
        """How many points it has delivered."""
        return self._batches.delivered

    def training_ended(self, status: Status = "failed") -> None:
        """Be told that nothing will be added to the journal, even if it does not say so."""
        self._ended_as = status

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
        """Write who the tracker is and which run it opens, for whoever delivers to it elsewhere."""
        kind = type(self.tracker)
        known = {
            "made_by": f"{kind.__module__}:{kind.__qualname__}",
            "settings": self.tracker.settings(),
            "run_id": self.progress.run_id,
            "adopted": self.progress.adopted,
        }
        self.folder.write_tracker(self.name, known)

    def reload(self) -> None:
        """Take over how far somebody else has come."""
        known = {entry.name for entry in fields(Progress)} - {"left_out"}
        kept = self.folder.read_progress(self.name)
        self.progress.left_out.update(kept.get("left_out", {}))
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

    def _start(self) -> Past:
        """Find out where to go on, alone."""
        if self._lock is None:
            self._lock = FileLock(self.folder.lock_of(self.name))
            run_id, adopted = self.progress.run_id, self.progress.adopted
            self.reload()  # another may have gone on meanwhile
            if run_id is not None:
                self.progress.run_id, self.progress.adopted = run_id, adopted
        progress, self._rewound = self.progress, False
        begin, last = last_records(self.folder.journal)
        past = Past(
            self.folder.journal,
            progress.offset,
            self.tracker.rewinds,
            progress.run_id is not None,
            progress.passed_over,
            closed=progress.status is not None,
        )
        if begin is not None:
            self._begin, self._past, self._read_to = begin.content, past, past.start
        if last is not None and last.kind == "end" and last.end <= progress.offset:
            self._ended = progress.status is not None  # another has delivered all, and closed it
        return past

    def _restart(self) -> None:
        """Begin anew where the training does, with what then still counts."""
        self._batches.clear()
        if self.opened:
            self._close("failed")
        self.progress.status = None  # it goes on, and may have been sent more than is noted
        self._past = None

    def _take(self, record: Record, past: Past) -> None:
        """Deliver `record`, or keep it for a batch."""
        if record.kind == "logs":
            self._batches.add(record, past)
            if self._batches.full:
                self._read_to = record.end
                self._flush()
            return
        self._flush()
        if record.kind == DAMAGED:
            self.progress.left_out[f"byte {record.start} of the journal"] = "a damaged line"
        elif record.kind == "begin":
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

    def _flush(self) -> None:
        """Deliver the batches, and note how far that is."""
        if self._batches:
            self._open(self._past)
            self._batches.deliver()
        if self._read_to > self.progress.offset:
            self.progress.offset = self._read_to
            self._save()

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
            time=begin["time"],
            rewind_to=None if past is None or self._rewound else past.rewind_to,
            trial_name=begin.get("trial_name"),
            trial_parameters=begin.get("trial_parameters"),
        )
        progress.run_id = self._call(self.tracker.open, opening)
        self.opened, self._ended, progress.status = True, False, None
        self._rewound = True
        if opening.rewind_to is not None and opening.rewind_to <= 0:
            progress.parameters = None  # which are forgotten with all else
            self._log_parameters()
        self._save()

    def _log_parameters(self) -> None:
        arguments, model_config = self._begin["arguments"], self._begin["model_config"]
        parameters, cut = fitting_parameters(
            self.tracker.parameters_of(arguments, model_config), self.tracker.limits
        )
        self.progress.left_out.update(cut)
        if parameters == self.progress.parameters:
            return
        self._owes_parameters = True
        try:
            self._call(self.tracker.log_parameters, parameters)
            self.progress.left_out.pop("parameters", None)
        except Rejected as error:
            self.progress.left_out["parameters"] = f"rejected: {error}"
        except Abandoned:
            raise
        except Exception as error:
            self._failures += 1
            if self._failures < MOST_TRIES:
                raise
            self.progress.left_out["parameters"] = f"failed: {type(error).__name__}: {error}"
            return  # the points go first; these are tried again before the run is closed
        self._owes_parameters, self.progress.parameters = False, parameters

    def _pass_over(self, record: Record) -> None:
        """Leave out what a resumed training has replaced."""
        passed_over = self.progress.passed_over
        if passed_over and passed_over[-1][1] == record.start:
            passed_over[-1][1] = record.end
        elif not self.tracker.rewinds:  # which forgets what was replaced, sent or not
            passed_over.append([record.start, record.end])
        if record.kind == "upload" and record.content["for"] == self.name:
            self._remove(record)

    def _upload(self, record: Record) -> None:
        name, path = record.content["name"], self.folder.path / record.content["path"]
        if not path.is_dir():
            self.progress.left_out[name] = "its files are gone"
            return
        try:
            self._call(self.tracker.log_files, Upload(path, name, record.step))
        except Rejected as error:
            self.progress.left_out[name] = f"rejected: {error}"
        self._remove(record)

    def _remove(self, record: Record) -> None:
        """Delete the copy of what was to be uploaded."""
        shutil.rmtree(self.folder.path / record.content["path"], ignore_errors=True)

    def _close(self, status: Status) -> None:
        if self.opened:
            if self._owes_parameters:
                self._log_parameters()
            self._call(self.tracker.close, None if self.progress.adopted else status)
        self.opened, self.progress.status = False, status
        self._save()

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Call the tracker, and let it be seen from outside that it is being called."""
        if self._abandoned:
            raise Abandoned
        self.doing = (method.__name__, monotonic())
        try:
            return method(*arguments)
        finally:
            self.doing = None
            if self._abandoned:
                raise Abandoned

    def _save(self) -> None:
        try:
            self.folder.write_progress(self.name, asdict(self.progress))
        except OSError as error:  # it goes on from memory; another process would from the last
            if not self._said_unsaved:
                self._said_unsaved = True
                logger.warning(
                    "How far %s has come cannot be written: %s. It is delivered to nevertheless.",
                    self.name,
                    error,
                )
