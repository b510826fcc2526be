"""`GivenWriterTracker`: writes a run with a writer that the user has opened."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from callback_core.tracking import Opening, Point, Status
from callback_tensorboard.tracker import TensorBoardTracker, as_code

logger = logging.getLogger(__name__)


class GivenWriterTracker(TensorBoardTracker):
    """Writes with a `SummaryWriter`, of torch, of tensorboardX, or one that is used like them.

    It stays open. A training that resumes makes it forget what is repeated, as does a writer that
    is opened with a `purge_step`.

    Args:
        writer: The writer.

    Raises:
        TypeError: It is none.
    """

    def __init__(self, writer: Any) -> None:
        needed = ("add_scalar", "add_text", "flush")
        if isinstance(writer, type) or not all(hasattr(writer, name) for name in needed):
            raise TypeError(
                f"TensorBoardCallback: tb_writer is {writer!r}, it must be a SummaryWriter. To say "
                "where the callback's own writes, set TENSORBOARD_LOGGING_DIR."
            )
        self._writer = writer

    def settings(self) -> None:
        """Return that no other process can write with it."""

    def adopt(self) -> str:
        """Return the directory that it writes to."""
        kept = getattr(self._writer, "log_dir", None) or getattr(self._writer, "logdir", None)
        directory = str(kept or "tb_writer")
        return directory if "://" in directory else str(Path(directory).absolute())

    def open(self, opening: Opening) -> str:
        """Forget what is to be forgotten, and return the directory that it writes to."""
        if opening.rewind_to is not None:
            self._forget(opening.rewind_to)
        return self.adopt()

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Write them as text. The HParams tab would show them as a run of their own."""
        for name, part in parameters.items():
            if part:
                self._writer.add_text(name, as_code(part))
        self._writer.flush()

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Write points at the time when they were logged."""
        for point in points:
            self._writer.add_scalar(point.name, point.value, point.step, walltime=point.time)
        self._writer.flush()

    def log_text(self, points: Sequence[Point]) -> None:
        """Write texts, which TensorBoard shows as Markdown."""
        for point in points:
            self._writer.add_text(point.name, point.value, point.step, walltime=point.time)
        self._writer.flush()

    def close(self, status: Status | None) -> None:
        """Leave it open."""
        self._writer.flush()

    def _forget(self, step: int) -> None:
        """Have TensorBoard forget what has been written from `step` on."""
        file = getattr(self._writer, "file_writer", None)
        if file is None:
            logger.warning(
                "%r cannot forget: points from step %d on may be double.", self._writer, step
            )
            return
        own = type(self._writer).__module__.startswith("tensorboardX.")
        name = "tensorboardX.proto.event_pb2" if own else "tensorboard.compat.proto.event_pb2"
        proto = import_module(name)
        for _ in range(2):  # the first of a run counts as no restart
            start = proto.SessionLog(status=proto.SessionLog.START)
            file.add_event(proto.Event(step=step, session_log=start))
