"""`Heard`: a tracker that writes down what it is told, and fails and hangs where a rule says so."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from callback_contract._case import OVER, Case, Training
from callback_core import NotConfigured
from callback_core.tracking import (
    Limits,
    Opening,
    Point,
    Rejected,
    Status,
    Tracker,
    Upload,
    flattened,
)

_ERRORS: Mapping[str, type[Exception]] = {
    "ConnectionError": ConnectionError,
    "NotConfigured": NotConfigured,
    "Rejected": Rejected,
    "RuntimeError": RuntimeError,
}


DELIVER_EVERY: Final = 0.01
"""Seconds between two deliveries to a `Heard`."""

HANGS: Final = 15.0
"""Seconds that a call hangs which is to hang, unless its rule lets it come back before.

Many times what rules wait for nothing: who waits for such a call comes too late for all of them.
"""

RETRY_AFTER: Final = 0.02
"""Seconds after which a `Heard` that fails is tried again, unless a rule says otherwise."""

IN_THE_TRAININGS_THREAD: Final = ("adopt", "begin", "release")
"""What a tracker is told by the training itself."""


class Heard(Tracker):
    """Writes a line of JSON to a file for each call.

    Args:
        path: The file.
        named: Its name.
        rewinds: Whether it can forget.
        checkpoints: Whether it takes checkpoints.
        adopts: The run that the user has opened.
        disabled: Whether it is switched off.
        bound: Whether it can be made in this process only.
        limits: What it can take, by the names of `Limits`. It is tried again soon.
        fails: By the names of methods, how they fail: `error` is the name of what is raised,
            `seconds` how long it takes; `times` how often, `point` for which name of a point only,
            and `until` names a file that ends it, as the end of the rule does.
    """

    name: ClassVar[str] = "heard"

    def __init__(
        self,
        path: str,
        named: str = "heard",
        rewinds: bool = False,
        checkpoints: bool = False,
        adopts: str | None = None,
        disabled: bool = False,
        bound: bool = False,
        limits: Mapping[str, Any] | None = None,
        fails: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self._settings = {n: v for n, v in locals().items() if n not in ("self", "__class__")}
        self.path, self.name, self.rewinds = path, named, rewinds  # type: ignore[misc]
        pace = {"deliver_every": DELIVER_EVERY, "retry_after": RETRY_AFTER}
        self.limits = Limits(**{"text": True, **pace, **(limits or {})})
        self.run = ""
        self._failed: dict[str, int] = {}

    def settings(self) -> dict[str, Any] | None:
        """Return how it was made."""
        return None if self._settings["bound"] else dict(self._settings)

    @property
    def disabled(self) -> bool:
        """Whether it is switched off."""
        return bool(self._settings["disabled"])

    @property
    def takes_checkpoints(self) -> bool:
        """Whether it takes checkpoints."""
        return bool(self._settings["checkpoints"])

    def parameters_of(
        self, arguments: Mapping[str, Any], model_config: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return all but where the training writes to, which rules change."""
        flat = flattened({**model_config, **arguments})
        return {n: v for n, v in flat.items() if n != "output_dir"}

    def adopt(self) -> str | None:
        """Return the run that the user has opened."""
        self._hear("adopt")
        return self._settings["adopts"]  # type: ignore[no-any-return]

    def begin(self) -> None:
        """Be told that a training begins."""
        self._hear("begin")

    def open(self, opening: Opening) -> str:
        """Open a run."""
        self._hear("open", **{**vars(opening), "again": opening.run_id is not None})
        self.run = opening.run_id or f"{self.name}-{os.getpid()}-{time.time_ns()}"
        return self.run

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Take parameters."""
        self._hear("log_parameters", parameters=dict(parameters))

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Take points."""
        self._hear("log_metrics", points)

    def log_text(self, points: Sequence[Point]) -> None:
        """Take strings."""
        self._hear("log_text", points)

    def log_summary(self, points: Sequence[Point]) -> None:
        """Take what a training has one of."""
        self._hear("log_summary", points)

    def log_files(self, upload: Upload) -> None:
        """Take a checkpoint."""
        files = {
            file.relative_to(upload.path).as_posix(): file.stat().st_size
            for file in sorted(upload.path.rglob("*"))
            if file.is_file()
        }
        self._hear("log_files", name=upload.name, step=upload.step, files=files)

    def close(self, status: Status | None) -> None:
        """Close the run."""
        self._hear("close", status=status)

    def release(self) -> None:
        """Undo what is left."""
        self._hear("release")

    def _hear(self, call: str, points: Sequence[Point] = (), **what: Any) -> None:
        thread = threading.current_thread().name
        line = {"call": call, "run": self.run, "thread": thread, "pid": os.getpid(), **what}
        line |= {"begun": time.time(), "points": [list(point) for point in points]}
        error = self._failure(call, points)
        line |= {"failed": error is not None, "ended": time.time()}
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.write(file, json.dumps(line, default=str).encode() + b"\n")  # as a whole
        os.close(file)
        if error is not None:
            raise error

    def _failure(self, call: str, points: Sequence[Point]) -> Exception | None:
        """Return the error that `call` is to end by, if it is, after the time that it takes."""
        how = (self._settings["fails"] or {}).get(call)
        if how is None or how.get("point", points and points[0].name) not in {
            *(point.name for point in points),
            *(() if points else (how.get("point", points),)),
        }:
            return None
        failed = self._failed[call] = self._failed.get(call, 0) + 1
        over = os.path.join(os.path.dirname(self.path), OVER)
        ends = [how.get("until", over), over]
        if failed > how.get("times", failed) or any(map(os.path.exists, ends)):
            return None
        deadline = time.monotonic() + how.get("seconds", 0.0)
        while time.monotonic() < deadline and not any(map(os.path.exists, ends)):
            time.sleep(0.01)
        return _ERRORS[how["error"]](f"{call} is to fail") if "error" in how else None


class Told(NamedTuple):
    """What a `Heard` was told.

    Attributes:
        path: Its file.
    """

    path: Path

    def calls(self, *names: str, failed: bool = False) -> list[dict[str, Any]]:
        """Return the calls of these names, or all, in order; those that failed where asked."""
        # A line that is being written may be seen in part.
        written = self.path.read_bytes() if self.path.exists() else b""
        found = [json.loads(line) for line in written.rpartition(b"\n")[0].splitlines()]
        return [
            call
            for call in found
            if call["failed"] is failed and (call["call"] in names or not names)
        ]

    @property
    def names(self) -> list[str]:
        """The names of the calls that did not fail, in order, but for its own thread's."""
        return [c["call"] for c in self.calls() if c["call"] not in IN_THE_TRAININGS_THREAD]

    def points(self, name: str = "train/loss") -> list[tuple[int, Any]]:
        """Return the steps and values of a curve, in order."""
        points = [point for call in self.calls() for point in call["points"]]
        return [(point[2], point[1]) for point in points if point[0] == name]

    def kept(self, name: str = "train/loss") -> list[tuple[int, Any]]:
        """Return what a store that forgets has of a curve: without what it was told to forget."""
        kept: list[tuple[int, Any]] = []
        for call in self.calls():
            if call["call"] == "open" and call["rewind_to"] is not None:
                kept = [point for point in kept if point[0] < call["rewind_to"]]
            kept += [(point[2], point[1]) for point in call["points"] if point[0] == name]
        return kept

    @property
    def status(self) -> list[Any]:
        """How runs were closed."""
        return [call["status"] for call in self.calls("close")]


def heard(case: Case, named: str = "heard", **options: Any) -> tuple[Any, Told]:
    """Return a callback that sends to a `Heard`, and what that was told."""
    path = case.output_dir.parent / f"{named}.jsonl"
    callback = case.make()
    callback.tracker = Heard(str(path), named, **options)
    return callback, Told(path)


def opens(late: Path) -> dict[str, Any]:
    """Return what fails of one that is not open before the file `late` is there."""
    return {"open": {"seconds": HANGS, "until": str(late)}}


def trained(
    case: Case, callback: Any, *logs: Any, late: Path | None = None, **how: Any
) -> Training:
    """Train a step for each of `logs`, to the end, and return the training.

    The file `late` is made right before the end, when all is logged.
    """
    training = case.training(callback, **how)
    training.begin()
    training.fire("on_epoch_begin")
    for values in logs:
        training.step(values)
    if late is not None:
        late.touch()
    training.end()
    return training


def after_a_step(training: Training) -> bool:
    """Do a step, and return true."""
    training.step({"note": 1.0})
    return True


def losses(*losses: float) -> list[dict[str, float]]:
    """Return logs of these losses."""
    return [{"loss": loss} for loss in losses]
