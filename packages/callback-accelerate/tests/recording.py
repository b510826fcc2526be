"""Trackers that write what they get to a file, and accelerators that use them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from callback_accelerate import make_trackers
from callback_core.tracking import Opening, Point, Status, Tracker, TrackerCallback


class FileTracker(Tracker):
    """Writes a line of JSON for each call."""

    def __init__(self, path: str, name: str = "file") -> None:
        self.path, self.name = path, name

    def settings(self) -> dict[str, Any]:
        return {"path": self.path, "name": self.name}

    def open(self, opening: Opening) -> str:
        run = opening.run_id or f"run-of-{opening.folder.parent.name}"
        self._write("open", run=run, name=opening.name)
        return run

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        self._write("parameters", **parameters)

    def log_metrics(self, points: Sequence[Point]) -> None:
        for point in points:
            self._write("point", key=point.name, step=point.step, value=point.value)

    def log_summary(self, points: Sequence[Point]) -> None:
        for point in points:
            self._write("summary", key=point.name, value=point.value)

    def close(self, status: Status | None) -> None:
        self._write("close", status=status)

    def _write(self, _called: str, **what: Any) -> None:
        with Path(self.path).open("a") as file:
            file.write(json.dumps({"called": _called, **what}) + "\n")


class FileCallback(TrackerCallback):
    """Sends a training to a `FileTracker`."""

    def __init__(self, path: Path, name: str = "file") -> None:
        super().__init__(FileTracker(str(path), name), flush_limit=300)


class Stored:
    """What a `FileTracker` got."""

    def __init__(self, path: Path) -> None:
        text = path.read_text() if path.exists() else ""
        self.calls = [json.loads(line) for line in text.splitlines()]

    def of(self, called: str) -> list[dict[str, Any]]:
        """Return what the calls of that kind got."""
        found = [dict(call) for call in self.calls if call["called"] == called]
        for call in found:
            del call["called"]
        return found

    @property
    def points(self) -> list[tuple[str, int, float]]:
        """The points, as name, step and value."""
        return [(point["key"], point["step"], point["value"]) for point in self.of("point")]

    @property
    def runs(self) -> list[str]:
        """The runs that were opened, each once, in their order."""
        return list(dict.fromkeys(call["run"] for call in self.of("open")))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of our package."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("callback_accelerate")
    ]


def new_accelerator(log_with: Any, project_dir: Path, **options: Any) -> Accelerator:
    """Return an accelerator as a new process would have it."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # noqa: SLF001
    return Accelerator(log_with=log_with, project_dir=str(project_dir), cpu=True, **options)


def new_training(folder: Path, *names: str, config: Any = None) -> Accelerator:
    """Return an accelerator with trackers that write to `<folder>/<name>`."""
    callbacks = [FileCallback(folder / name, name) for name in names or ("file",)]
    accelerator = new_accelerator(make_trackers(callbacks, str(folder / "out")), folder)
    accelerator.init_trackers("project", config)
    return accelerator
