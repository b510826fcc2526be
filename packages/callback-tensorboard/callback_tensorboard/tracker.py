"""`TensorBoardTracker`: writes a run as event files for TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from itertools import count
from pathlib import Path
from socket import gethostname
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

from callback_core.tracking import Limits, Opening, Point, Rejected, Status, Tracker, flattened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tensorboard.compat.proto.event_pb2 import Event

    from callback_tensorboard.event_file import EventFile


class TensorBoardTracker(Tracker):
    """Writes a run to its own directory.

    The id of a run is its directory. If that is below the training's output directory, the id is
    the relative path, so that the run is found again after the output directory was moved.

    Args:
        logging_dir: The directory of all runs, by default `<output_dir>/runs`. Each run has a new
            directory in it, `<date>_<host>`, or the name of a trial of a hyperparameter search.

    Raises:
        ValueError: `logging_dir` cannot be a directory.
    """

    name = "tensorboard"
    requires: Mapping[str, str] = MappingProxyType({"tensorboard": "tensorboard"})
    limits = Limits(text=True)
    rewinds = True

    def __init__(self, logging_dir: str | None = None) -> None:
        self.logging_dir = None if logging_dir is None else _check_directory(logging_dir)
        self._directory = Path()
        self._file: EventFile | None = None
        self._rewind_to: int | None = None
        self._began = 0.0

    def settings(self) -> dict[str, Any] | None:
        """Return the arguments of an equal tracker."""
        return {"logging_dir": None if self.logging_dir is None else str(self.logging_dir)}

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return arguments and model configuration separately, as two texts show them."""
        return {"args": dict(arguments), "model_config": dict(model_config)}

    def open(self, opening: Opening) -> str:
        """Create the directory of a new run, or continue in that of an earlier one."""
        self._close_file()
        self._began = opening.time or time.time()
        if opening.run_id is None:
            runs = self.logging_dir or opening.output_dir / "runs"
            name = opening.trial_name or f"{datetime.now():%b%d_%H-%M-%S}_{gethostname()}"
            self._directory = _new_directory(runs, name)
        else:
            self._directory = opening.output_dir / opening.run_id
            self._directory.mkdir(parents=True, exist_ok=True)
        # The user's run may have other points, which would not be written again.
        self._rewind_to = None if opening.adopted else opening.rewind_to
        if hparams := _hparams():
            hparams.forget_end(self._directory)
        return _run_id(self._directory, opening.output_dir)

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Write the parameters as text, and for the HParams tab."""
        from callback_tensorboard.event_file import text_event

        flat = flattened({**parameters["model_config"], **parameters["args"]})
        if hparams := _hparams():
            with _rejects_invalid():
                hparams.write_parameters(self._directory, flat, self._began)
        texts = {name: as_code(part) for name, part in parameters.items() if part}
        self._close_file()  # TensorBoard moves on to newer files, and never returns to this one
        self._add(text_event(name, text, 0, self._began) for name, text in texts.items())

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Write the points of a step at the time when they were logged."""
        from callback_tensorboard.event_file import scalar_events

        self._add(scalar_events(points))

    def log_text(self, points: Sequence[Point]) -> None:
        """Write texts, which TensorBoard shows as Markdown."""
        from callback_tensorboard.event_file import text_event

        self._add(text_event(point.name, point.value, point.step, point.time) for point in points)

    def close(self, status: Status | None) -> None:
        """Close the file, and write how the run ended. A user's run gets no end."""
        self._close_file()
        if status is not None and (hparams := _hparams()):
            hparams.write_end(self._directory, status, self.ended_at or time.time())

    def _add(self, events: Iterable[Event]) -> None:
        from callback_tensorboard.event_file import EventFile

        if self._file is None:
            self._file = EventFile(self._directory, self._rewind_to)
        with _rejects_invalid():
            made = list(events)
        self._file.add(made)
        self._rewind_to = None  # the file contains it now

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _hparams() -> ModuleType | None:
    """Return the module for the HParams tab; `None` if TensorBoard lacks the plugin."""
    try:
        return import_module("callback_tensorboard.hparams")
    except ImportError:
        return None


def _check_directory(logging_dir: str) -> Path:
    directory = Path(logging_dir).expanduser().absolute()
    if "://" in logging_dir:
        raise ValueError(
            f"TENSORBOARD_LOGGING_DIR is {logging_dir!r}, it must be a local directory. To write "
            "elsewhere, pass a writer: tb_writer=SummaryWriter(...)."
        )
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(
            f"TENSORBOARD_LOGGING_DIR is {logging_dir!r}, but {existing} is a file. It must be a "
            "directory, which need not exist."
        )
    return directory


def _new_directory(runs: Path, name: str) -> Path:
    """Create a new directory in `runs`, and return its path: `name`, `name_2` and so on."""
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
    """Return `values` as JSON in a Markdown code block."""
    text = json.dumps(values, indent=2, default=str, ensure_ascii=False)
    return "".join(f"    {line}\n" for line in text.splitlines())


@contextmanager
def _rejects_invalid() -> Iterator[None]:
    """Raise `Rejected` for values that no event can hold, such as half a surrogate pair."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise Rejected(str(error)) from error
