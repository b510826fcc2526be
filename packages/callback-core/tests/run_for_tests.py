"""A run whose journal is written by hand, and is delivered by whoever a test makes for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tracking_for_tests import FileTracker

from callback_core.tracking.consumer import Consumer
from callback_core.tracking.journal import Journal, Record, read
from callback_core.tracking.lock import FileLock
from callback_core.tracking.run_folder import RunFolder
from callback_core.tracking.tracker_run import TrackerRun


class Run:
    """A run whose journal is written by hand.

    Attributes:
        out: The file of its tracker.
        up: The file that is there once its tracker's service is.
    """

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.of(path, "run")
        self.folder.path.mkdir(parents=True)
        self.out, self.up = path / "tracker.jsonl", path / "up"
        self.begin()

    def write(self, kind: str, step: int = 0, **content: Any) -> None:
        journal = Journal(self.folder.journal)
        journal.append({"kind": kind, "step": step, "time": float(step), **content})
        journal.close()

    def begin(self, step: int = 0, **arguments: Any) -> None:
        self.write("begin", step, resumed=step > 0, arguments=arguments, model_config={})

    def log(self, step: int, **values: Any) -> None:
        self.write("logs", step, epoch=0.5, logs=values)

    def save(self, step: int, *trackers: str) -> None:
        """Write that a checkpoint was saved, and keep it for these trackers."""
        self.write("saved", step)
        for tracker in trackers:
            name = f"checkpoint-{step}"
            kept = self.folder.path / "files" / tracker / name
            kept.mkdir(parents=True)
            (kept / "weights").write_text("w", "utf-8")
            about = {"for": tracker, "path": f"files/{tracker}/{name}", "name": name}
            self.write("upload", step, **about)

    def end(self, status: str = "finished") -> None:
        self.write("end", status=status)

    def records(self) -> list[Record]:
        return list(read(self.folder.journal))

    def consumer(self, kind: type[FileTracker] = FileTracker, **options: Any) -> Consumer:
        """Return who delivers to a tracker that is made with `options`."""
        tracker = kind(str(self.out), **{"until": str(self.up), **options})
        consumer = Consumer(TrackerRun(tracker, self.folder, "file"))
        consumer.run.write_identity()
        return consumer

    def deliver(self, **options: Any) -> Consumer:
        """Deliver all that there is; nobody hears of it any more, as where that one is killed."""
        consumer = self.consumer(**options)
        try:
            consumer.deliver()
        finally:
            consumer.abandon()
        return consumer

    def forget_since(self, kind: str, step: int) -> None:
        """Have it noted that the last such record, and what follows it, was not delivered yet."""
        progress = self.folder.read_progress("file")
        [*_, record] = [r for r in self.records() if (r.kind, r.step) == (kind, step)]
        self.folder.write_progress("file", {**progress, "offset": record.start, "status": None})

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Have a training write its journal meanwhile."""
        lock = FileLock(self.folder.lock)
        try:
            yield
        finally:
            lock.release()


def tries(consumer: Consumer, most: int = 50) -> list[str]:
    """Deliver until that works, and return what was raised."""
    errors = []
    for _ in range(most):
        try:
            consumer.deliver()
            break
        except Exception as error:
            errors.append(str(error))
    return errors
