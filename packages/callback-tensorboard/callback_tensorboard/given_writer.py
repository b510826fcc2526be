"""`GivenWriterTracker`: writes a run with the user's own writer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from callback_core.tracking import Opening, Point, Status
from callback_tensorboard.tracker import TensorBoardTracker, as_code

logger = logging.getLogger(__name__)


class GivenWriterTracker(TensorBoardTracker):
    """Writes with a `SummaryWriter` of torch or tensorboardX, or with a compatible object.

    The writer stays open. When a training resumes, TensorBoard forgets the points that will be
    repeated, as with the `purge_step` of a new writer.

    Args:
        writer: The writer.

    Raises:
        TypeError: `writer` is not a writer.
    """

    requires: Mapping[str, str] = MappingProxyType({})  # the writer has its own

    def __init__(self, writer: Any) -> None:
        needed = ("add_scalar", "add_text", "flush")
        if isinstance(writer, type) or not all(hasattr(writer, name) for name in needed):
            raise TypeError(
                f"TensorBoardCallback: tb_writer is {writer!r}, it must be a SummaryWriter. To "
                "choose the callback's own directory, set TENSORBOARD_LOGGING_DIR."
            )
        self._writer = writer
        self._is_x = type(writer).__module__.startswith("tensorboardX.")
        if self._is_x:
            self.limits = replace(self.limits, key_characters=r"-/\w.")  # it would do so itself

    def settings(self) -> None:
        """Return `None`, because no other process can use the writer."""

    def adopt(self) -> str:
        """Return the writer's directory."""
        kept = getattr(self._writer, "log_dir", None) or getattr(self._writer, "logdir", None)
        directory = str(kept or "tb_writer")
        return directory if "://" in directory else str(Path(directory).absolute())

    def open(self, opening: Opening) -> str:
        """Rewind the run if required, and return the writer's directory."""
        if opening.rewind_to is not None:
            self._forget(opening.rewind_to)
        return self.adopt()

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Write the parameters as text. The HParams tab would show them as a separate run."""
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
        """Flush the writer, and leave it open."""
        self._writer.flush()

    def _forget(self, step: int) -> None:
        """Make TensorBoard forget all points from `step` on."""
        file = getattr(self._writer, "file_writer", None)
        if file is None:
            logger.warning(
                "%r cannot rewind: points from step %d on may be duplicated.", self._writer, step
            )
            return
        name = (
            "tensorboardX.proto.event_pb2" if self._is_x else "tensorboard.compat.proto.event_pb2"
        )
        proto = import_module(name)
        for _ in range(2):  # TensorBoard ignores the first restart of a run
            start = proto.SessionLog(status=proto.SessionLog.START)
            file.add_event(proto.Event(step=step, session_log=start))
