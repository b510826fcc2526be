"""`OpenRun`: what is done with a Neptune run that is open."""

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
    """Return nested values by their paths, each as something that Neptune has a type for."""
    return {name: _as_field(value) for name, value in flattened(groups, "/").items()}


def _as_field(value: Any) -> Any:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and abs(value) <= _LARGEST_INT:
        return value
    return value if isinstance(value, float) and math.isfinite(value) else str(value)


class OpenRun:
    """A run that is open.

    Args:
        run: A `neptune.Run`.
        is_ours: Whether it is closed here.
        namespace: Where in it everything goes.
        checkpoints: Where in there checkpoints go.
        folder: A directory for what has to be there later.
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
        """Set fields, by their whole paths."""
        _say(self._send(lambda: self._assign(fields)), "fields")

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Set fields in the namespace."""
        self.assign({f"{self._namespace}/{name}": value for name, value in parameters.items()})

    def log_series(self, points: Sequence[Point]) -> None:
        """Add points to series of numbers or of strings."""
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

        _say(self._send(extend), "points")

    def log_files(self, upload: Upload, keeps_one: bool) -> None:
        """Upload a directory; with `keeps_one`, delete the one before as soon as it is there."""
        note = self._folder / "checkpoint"
        before = note.read_text("utf-8") if keeps_one and note.is_file() else None
        path = f"{self._checkpoints}/{upload.name}"
        if self._outbox is None and sdk.is_offline(self.run):
            self._upload(path, self._kept(upload))
        else:
            with _named_apart(upload.path) as directory:
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
        _say(self._send(lambda: None), "values")  # that the user has added
        if self._is_ours:
            sdk.stop(self.run)

    def _assign(self, fields: Mapping[str, Any]) -> None:
        for path, value in fields.items():
            try:
                self.run[path] = value
            except (TypeError, ValueError):  # it has a value of another type
                self.run.pop(path)
                self.run[path] = value

    def _send(self, give: Callable[[], Any]) -> list[str]:
        """Give the run something, see that it is sent, and return what the server says against it.

        To a run of the user's it is given when it is on the disk, from where Neptune sends it.
        """
        try:
            give()
            if self._outbox is not None:
                return self._outbox.flush()
        except Exception:
            if self._outbox is not None:
                self._outbox.forget_own()  # it is given again
            raise
        self.run.wait(disk_only=True)
        return []

    def _upload(self, path: str, directory: Path) -> None:
        """Upload files, and return when they have been read."""
        if refused := self._send(lambda: self.run[path].upload_files(str(directory))):
            raise Rejected("; ".join(refused))
        self._wait_for_thread()

    def _delete(self, checkpoint: str) -> None:
        path = f"{self._checkpoints}/{checkpoint}"
        if self.run.exists(path):
            _say(self._send(lambda: self.run.pop(path)), "deletions")
        shutil.rmtree(self._folder / "checkpoints" / checkpoint, ignore_errors=True)

    def _wait_for_thread(self) -> None:
        """Wait until Neptune's thread, which a run of the user's has, has sent everything.

        `Run.wait` would hold all that the user's own threads give the run meanwhile.
        """
        queue = self.run._op_processor  # noqa: SLF001
        consumer = getattr(queue, "_consumer", None)
        if consumer is None:
            return
        last = queue._last_version  # noqa: SLF001
        consumer.wake_up()
        while queue._consumed_version < last:  # noqa: SLF001
            if not consumer.is_running():
                raise ConnectionError("Neptune has stopped to send what this run was given")
            time.sleep(0.05)

    def _kept(self, upload: Upload) -> Path:
        """Return a lasting copy of a directory: offline, Neptune notes only where files are."""
        kept = self._folder / "checkpoints" / upload.name
        shutil.rmtree(kept, ignore_errors=True)
        linked_copy(upload.path, kept)
        return kept


def _say(refused: list[str], what: str) -> None:
    if refused:
        logger.warning("Neptune has refused some %s: %s", what, "; ".join(refused))


@contextmanager
def _named_apart(directory: Path) -> Iterator[Path]:
    """Yield a path to a directory that is not below the working directory.

    Files below that Neptune names by their paths from there, and others by those in the directory.
    """
    with tempfile.TemporaryDirectory(prefix="neptune-") as apart:
        link = Path(apart) / "files"
        try:
            link.symlink_to(directory.absolute(), target_is_directory=True)
        except OSError:  # not every system lets everybody make one
            link = directory
        yield link
