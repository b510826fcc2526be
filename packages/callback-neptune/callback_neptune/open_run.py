"""`OpenRun`: logs to an open Neptune run."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import Point, Rejected, Status, Upload, flattened, linked_copy
from callback_neptune import sdk
from callback_neptune.outbox import Outbox

logger = logging.getLogger(__name__)

_LARGEST_INT: Final = 2**63 - 1


def as_parameters(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested values by path, each as a value that Neptune has a type for."""
    return {name: _as_field(value) for name, value in flattened(groups, "/").items()}


def _as_field(value: Any) -> Any:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST_INT:
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


class OpenRun:
    """An open run.

    Args:
        run: A `neptune.Run`.
        is_ours: Whether `close` stops the run.
        namespace: The namespace for everything that is logged.
        checkpoints: The namespace of checkpoints, below `namespace`.
        folder: A directory for files that must outlast the process.
    """

    def __init__(
        self, run: Any, is_ours: bool, namespace: str, checkpoints: str, folder: Path
    ) -> None:
        self.run = run
        self._is_ours = is_ours
        self._namespace = namespace
        self._checkpoints = f"{namespace}/{checkpoints}"
        self._folder = folder
        queue = run._op_processor  # noqa: SLF001
        self._outbox: Outbox | None = queue if isinstance(queue, Outbox) else None

    def assign(self, fields: Mapping[str, Any]) -> None:
        """Set fields, by full path."""
        _report_refused(self._send(lambda: self._assign(fields)), "fields")

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set fields in the namespace."""
        self.assign({f"{self._namespace}/{name}": value for name, value in parameters.items()})

    def log_series(self, points: Sequence[Point]) -> None:
        """Add points to series of numbers or strings."""
        series: dict[str, list[Point]] = {}
        for point in points:
            series.setdefault(f"{self._namespace}/{point.name}", []).append(point)

        def extend() -> None:
            for path, its_points in series.items():
                self.run[path].extend(
                    [point.value for point in its_points],
                    steps=[point.step for point in its_points],
                    timestamps=[point.time for point in its_points],
                )

        _report_refused(self._send(extend), "points")

    def log_files(self, upload: Upload, keeps_one: bool) -> None:
        """Upload a directory. With `keeps_one`, delete the previous one afterwards."""
        note = self._folder / "checkpoint"
        before = note.read_text("utf-8") if keeps_one and note.is_file() else None
        path = f"{self._checkpoints}/{upload.name}"
        if self._outbox is None and sdk.is_offline(self.run):
            self._upload(path, self._lasting_copy(upload))
        else:
            with _outside_working_directory(upload.path) as directory:
                self._upload(path, directory)
        self._folder.mkdir(parents=True, exist_ok=True)
        note.write_text(upload.name, "utf-8")
        if before is not None and before != upload.name:
            self._delete(before)

    def close(self, status: Status | None) -> None:
        """Note how the training ended, and stop the run if it is ours."""
        if status is not None:
            ended = {f"{self._namespace}/training_status": status, "sys/failed": status == "failed"}
            self.assign(ended)
        _report_refused(self._send(lambda: None), "values")  # values that the user added
        if self._is_ours:
            sdk.stop(self.run)

    def _assign(self, fields: Mapping[str, Any]) -> None:
        for path, value in fields.items():
            try:
                self.run[path] = value
            except (TypeError, ValueError):  # the existing value has another type
                self.run.pop(path)
                self.run[path] = value

    def _send(self, change: Callable[[], Any]) -> list[str]:
        """Make a change to the run, send it, and return the server's errors about it.

        A user's run has Neptune's own queue. There this only waits until the change is on disk;
        Neptune sends it from there.
        """
        try:
            change()
            if self._outbox is not None:
                return self._outbox.flush()
        except Exception:
            if self._outbox is not None:
                self._outbox.forget_own()  # a retry makes the change again
            raise
        self.run.wait(disk_only=True)
        return []

    def _upload(self, path: str, directory: Path) -> None:
        """Upload files, and wait until they have been read."""
        if refused := self._send(lambda: self.run[path].upload_files(str(directory))):
            raise Rejected("; ".join(refused))
        self._wait_for_thread()

    def _delete(self, checkpoint: str) -> None:
        path = f"{self._checkpoints}/{checkpoint}"
        if self.run.exists(path):
            _report_refused(self._send(lambda: self.run.pop(path)), "deletions")
        shutil.rmtree(self._folder / "checkpoints" / checkpoint, ignore_errors=True)

    def _wait_for_thread(self) -> None:
        """Wait until the thread of a user's run has sent everything.

        `Run.wait` is not used: it would block the user's own threads when they log to the run.
        """
        queue = self.run._op_processor  # noqa: SLF001
        consumer = getattr(queue, "_consumer", None)
        if consumer is None:
            return
        last = queue._last_version  # noqa: SLF001
        consumer.wake_up()
        while queue._consumed_version < last:  # noqa: SLF001
            if not consumer.is_running():
                raise ConnectionError("Neptune's thread stopped before it sent everything")
            time.sleep(0.05)

    def _lasting_copy(self, upload: Upload) -> Path:
        """Return a lasting copy of a directory. Offline, Neptune only stores the paths of files."""
        kept = self._folder / "checkpoints" / upload.name
        shutil.rmtree(kept, ignore_errors=True)
        linked_copy(upload.path, kept)
        return kept


def _report_refused(refused: list[str], what: str) -> None:
    if refused:
        logger.warning("Neptune refused some %s: %s", what, "; ".join(refused))


@contextmanager
def _outside_working_directory(directory: Path) -> Iterator[Path]:
    """Yield a path to a directory that is outside the working directory.

    Neptune names files below the working directory by their path from there, and all other files by
    their path in the uploaded directory.
    """
    with tempfile.TemporaryDirectory(prefix="neptune-") as outside:
        link = Path(outside) / "files"
        try:
            link.symlink_to(directory.absolute(), target_is_directory=True)
        except OSError:  # some systems restrict symbolic links
            link = directory
        yield link
