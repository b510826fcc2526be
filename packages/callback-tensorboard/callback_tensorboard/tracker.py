"""`TensorBoardTracker`: writes a run as event files, which TensorBoard shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from socket import gethostname
from types import ModuleType
from typing import TYPE_CHECKING, Any

from callback_core.tracking import Limits, Opening, Point, Rejected, Status, Tracker, flattened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorboard.compat.proto.event_pb2 import Event

    from callback_tensorboard.event_file import EventFile


class TensorBoardTracker(Tracker):
    """Writes a run into a directory of its own.

    The id of a run is its directory: relative to the training's output directory, if it is in it,
    so that the run is found again when all of that has been moved.

    Args:
        logging_dir: Where to write; otherwise `<output_dir>/runs/<date>_<host>`, which is new for
            each run. A trial of a hyperparameter search has a directory under its name in it.

    Raises:
        RuntimeError: `tensorboard` is not installed.
        ValueError: There can be no such directory.
    """

    name = "tensorboard"
    limits = Limits(text=True)
    rewinds = True
    needs = "tensorboard"

    def __init__(self, logging_dir: str | None = None) -> None:
        if find_spec("tensorboard") is None:
            raise RuntimeError(
                "TensorBoardCallback writes its files by means of the package tensorboard, which "
                "is not installed: pip install tensorboard"
            )
        self.logging_dir = None if logging_dir is None else _checked(logging_dir)
        self._directory = Path()
        self._trial: Mapping[str, Any] = {}
        self._file: EventFile | None = None
        self._rewind_to: int | None = None

    def settings(self) -> dict[str, Any] | None:
        """Return where to write."""
        return {"logging_dir": None if self.logging_dir is None else str(self.logging_dir)}

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return both apart, as they are shown as text."""
        return {"args": dict(arguments), "model_config": dict(model_config)}

    def open(self, opening: Opening) -> str:
        """Make the directory of the run, or go on in the one that it has."""
        self._close_file()
        if opening.run_id is None:
            self._directory = self._new_directory(opening)
        else:
            self._directory = opening.output_dir / opening.run_id
            self._directory.mkdir(parents=True, exist_ok=True)
        self._trial = opening.trial_parameters or {}
        # A run that the user has opened may hold more than what would be written again.
        self._rewind_to = None if opening.adopted else opening.rewind_to
        if hparams := _hparams():
            hparams.forget_end(self._directory)
        return _run_id(self._directory, opening.output_dir)

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Write them as text, and for the HParams tab."""
        from callback_tensorboard.event_file import text_event

        flat = flattened({**parameters["model_config"], **parameters["args"], **self._trial})
        if hparams := _hparams():
            with _rejecting():
                hparams.write_parameters(self._directory, flat)
        texts = {name: as_code(part) for name, part in parameters.items() if part}
        self._close_file()  # what is written next is read next, and nothing before it any more
        self._add(text_event(name, text, 0, time.time()) for name, text in texts.items())

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Write the points of a step at the time when they were logged."""
        from callback_tensorboard.event_file import scalar_events

        self._add(scalar_events(points))

    def log_text(self, points: Sequence[Point]) -> None:
        """Write texts, which TensorBoard shows as Markdown."""
        from callback_tensorboard.event_file import text_event

        self._add(text_event(point.name, point.value, point.step, point.time) for point in points)

    def close(self, status: Status | None) -> None:
        """Close the file and, where the run is ours, write how it ended."""
        self._close_file()
        if status is not None and (hparams := _hparams()):
            hparams.write_end(self._directory, status)

    def _add(self, events: Iterable[Event]) -> None:
        from callback_tensorboard.event_file import EventFile

        if self._file is None:
            self._file = EventFile(self._directory, self._rewind_to)
        with _rejecting():
            made = list(events)
        self._file.add(made)
        self._rewind_to = None  # the file has it

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _new_directory(self, opening: Opening) -> Path:
        """Return the directory, now made, of a run that begins."""
        directory = self.logging_dir
        if directory is None:
            directory = _unused(opening.output_dir / "runs")
        if opening.trial_name:
            directory /= opening.trial_name
        directory.mkdir(parents=True, exist_ok=True)
        return directory


def _hparams() -> ModuleType | None:
    """Return what writes for the HParams tab, unless TensorBoard goes without that plugin."""
    try:
        return import_module("callback_tensorboard.hparams")
    except ImportError:
        return None


def _checked(logging_dir: str) -> Path:
    directory = Path(logging_dir).expanduser().absolute()
    if "://" in logging_dir:
        raise ValueError(
            f"TENSORBOARD_LOGGING_DIR is {logging_dir!r}, which is no directory of this machine. "
            "Name one, or give the callback a writer: tb_writer=SummaryWriter(...)."
        )
    there = next(path for path in (directory, *directory.parents) if path.exists())
    if not there.is_dir():
        raise ValueError(
            f"TENSORBOARD_LOGGING_DIR is {logging_dir!r}, but {there} is a file. Name a directory, "
            "which need not exist."
        )
    return directory


def _unused(runs: Path) -> Path:
    """Return a directory in `runs`, now made, that nobody else has."""
    name = f"{datetime.now():%b%d_%H-%M-%S}_{gethostname()}"
    for number in count(1):
        directory = runs / (name if number == 1 else f"{name}_{number}")
        try:
            directory.mkdir(parents=True)
            return directory
        except FileExistsError:
            continue
    raise AssertionError("count never ends")


def _run_id(directory: Path, output_dir: Path) -> str:
    inside = directory.resolve()
    try:
        return inside.relative_to(output_dir.resolve()).as_posix()
    except ValueError:
        return str(inside)


def as_code(values: Mapping[str, Any]) -> str:
    """Return the Markdown that shows `values` as JSON."""
    text = json.dumps(values, indent=2, default=str, ensure_ascii=False)
    return "".join(f"    {line}\n" for line in text.splitlines())


@contextmanager
def _rejecting() -> Iterator[None]:
    """Tell what no event can hold, such as half a surrogate pair, from what fails for now."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise Rejected(str(error)) from error
