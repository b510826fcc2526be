"""A tracker that keeps all rules. Its store has a JSON file for each run."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from callback_contract import RecordedRun, TrackerContract
from callback_core.tracking import Limits, Opening, Point, Status, Tracker, TrackerCallback, Upload

DOWN = "the service is down"
"""The name of a file that makes the store unreachable."""


class FileTracker(Tracker):
    """Stores each run in a file in the directory `store`."""

    name: ClassVar[str] = "reference"
    limits = Limits(
        batch_size=500,
        parameter_length=250,
        parameter_count=100,
        key_characters=r"\w ./-",
        key_length=250,
        text=True,
        deliver_every=0.02,
    )
    rewinds: ClassVar[bool] = True
    takes_checkpoints = True

    def __init__(self, store: str) -> None:
        self.store = Path(store)
        self.run: dict[str, Any] = {}

    def settings(self) -> dict[str, Any] | None:
        return {"store": str(self.store)}

    def open(self, opening: Opening) -> str:
        if (self.store / DOWN).exists():
            raise ConnectionError(DOWN)
        if opening.run_id is None:
            self.run = self.new_run(opening)
        else:
            self.run = json.loads(self.file_of(opening.run_id).read_text("utf-8"))
        self.run["status"] = "running"
        if opening.rewind_to is not None:
            self.rewind(opening.rewind_to)
        self.save()
        return str(self.run["id"])

    def new_run(self, opening: Opening) -> dict[str, Any]:
        self.store.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            try:
                self.file_of(f"run-{number:03}").open("x").close()
            except FileExistsError:
                number += 1
            else:
                run: dict[str, Any] = {"id": f"run-{number:03}", "name": opening.name}
                return (
                    run
                    | {key: {} for key in ("parameters", "summary")}
                    | {key: [] for key in ("points", "text", "files")}
                )

    def rewind(self, step: int) -> None:
        for kind in ("points", "text"):
            self.run[kind] = [point for point in self.run[kind] if point[1] < step]

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        self.run["parameters"].update(parameters)
        self.save()

    def log_metrics(self, points: Sequence[Point]) -> None:
        self.run["points"] += [[point.name, point.step, float(point.value)] for point in points]
        self.save()

    def log_text(self, points: Sequence[Point]) -> None:
        self.run["text"] += [[point.name, point.step, point.value] for point in points]
        self.save()

    def log_summary(self, points: Sequence[Point]) -> None:
        self.run["summary"].update({point.name: float(point.value) for point in points})
        self.save()

    def log_files(self, upload: Upload) -> None:
        for file in sorted(upload.path.rglob("*")):
            if file.is_file():
                self.run["files"].append(
                    f"{upload.name}/{file.relative_to(upload.path).as_posix()}"
                )
        self.save()

    def close(self, status: Status | None) -> None:
        self.run["status"] = status or "running"
        self.save()

    def file_of(self, run_id: str) -> Path:
        return self.store / f"{run_id}.json"

    def save(self) -> None:
        file = self.file_of(self.run["id"])
        part = file.with_suffix(".part")
        part.write_text(json.dumps(self.run, default=str), "utf-8")
        os.replace(part, file)


class ReferenceCallback(TrackerCallback):
    """Sends a training to a `FileTracker`."""


class Reference(TrackerContract):
    """The suite of the reference tracker. Tests subclass it to change a part."""

    __test__ = False
    contract = (2, 0)
    capabilities = frozenset(
        {"state", "resume", "rewinds", "status", "parameters", "non_finite", "text", "files"}
        | {"unreachable", "redacts", "scalars"}
    )
    flush_limit = 0.1
    module = "reference_tracker"
    tracker: ClassVar[type[FileTracker]] = FileTracker
    callback: ClassVar[type[TrackerCallback]] = ReferenceCallback

    def make(self, output_dir: Path) -> Any:
        return self.callback(self.tracker(str(output_dir / "store")))

    def make_unreachable(self, output_dir: Path) -> Any:
        store = output_dir / "store"
        store.mkdir()
        (store / DOWN).touch()
        return self.callback(self.tracker(str(store)), flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        (output_dir / "store" / DOWN).unlink()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        files = sorted((output_dir / "store").glob("run-*.json"))
        return [recorded(json.loads(text)) for text in (file.read_text() for file in files) if text]


def recorded(run: Mapping[str, Any]) -> RecordedRun:
    """Return the run in the content of a file of the store."""
    points: dict[str, list[tuple[int, float]]] = {}
    text: dict[str, list[tuple[int, str]]] = {}
    for name, step, value in run["points"]:
        points.setdefault(name, []).append((step, math.nan if value is None else value))
    for name, step, value in run["text"]:
        text.setdefault(name, []).append((step, value))
    return RecordedRun(
        id=run["id"],
        parameters=run["parameters"],
        points=points,
        text=text,
        summary=run["summary"],
        files=frozenset(run["files"]),
        status=run["status"],
    )
