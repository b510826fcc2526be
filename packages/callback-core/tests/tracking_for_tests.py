"""A tracker that writes to a file, a training by hand that it is told of, and how to run one."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, get_ident
from typing import TYPE_CHECKING, Any, Final

from arguments_for_tests import Arguments

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    NotConfigured,
    TrainerControl,
    TrainerState,
)
from callback_core.tracking import (
    Limits,
    Opening,
    Point,
    Rejected,
    Tracker,
    TrackerCallback,
    Upload,
)

if TYPE_CHECKING:  # other processes import this module too, and need no pytest
    import pytest

PATIENCE = 300.0
"""Seconds after which what a test waits for is taken to hang. Waiting ends when it happens."""

LET_GO = Event()
"""When it is set, trackers of this process that hang come back, so that their threads end."""

OF_THE_TRAINING: Final = ("adopt", "begin", "release")
"""The calls that the training's own thread makes."""

PACE: Final = {"deliver_every": 0.01, "retry_after": 0.02}
"""The limits of a tracker that is asked often, so that no test waits for a pause."""

_ERRORS: Final = {
    error.__name__: error
    for error in (ConnectionError, ImportError, NotConfigured, Rejected, RuntimeError)
}


class FileTracker(Tracker):
    """Writes a line of JSON for each call.

    Args:
        path: The file.
        name: Its name.
        fail: The method that fails, or `all` that deliver.
        error: The name of the error that it fails with.
        times: How often each method fails; without it, always.
        hang: The method that does not come back; `hangs` tells that it was called.
        point: Only calls with a point of this name fail and hang.
        until: A file that ends failing and hanging, once it is there.
        delay: Seconds that each call takes.
        rewinds: Whether it can forget: whoever reads its file with `stored` sees to that.
        checkpoints: Whether it takes checkpoints.
        adopts: The run that the user has opened.
        off: A file that switches it off, while it is there.
        bound: Whether only this process can make it.
        limits: What it can take, by the names of `Limits`.
    """

    name = "file"

    def __init__(
        self,
        path: str,
        *,
        name: str = "file",
        fail: str | None = None,
        error: str = "ConnectionError",
        times: float | None = None,
        hang: str | None = None,
        point: str | None = None,
        until: str | None = None,
        delay: float = 0.0,
        rewinds: bool = False,
        checkpoints: bool = False,
        adopts: str | None = None,
        off: str | None = None,
        bound: bool = False,
        limits: Mapping[str, Any] | None = None,
    ) -> None:
        self.made_by = {n: v for n, v in locals().items() if n not in ("self", "__class__")}
        self.path, self.name, self.rewinds = path, name, rewinds  # type: ignore[misc]
        self.fail, self.error, self.times = fail, error, times
        self.hang, self.point, self.until, self.delay = hang, point, until, delay
        self.checkpoints, self.adopts, self.off, self.bound = checkpoints, adopts, off, bound
        self.limits = Limits(**{**PACE, **(limits or {})})
        self.run = ""
        self.failures: Counter[str] = Counter()

    def settings(self) -> dict[str, Any] | None:
        return None if self.bound else dict(self.made_by)

    @property
    def disabled(self) -> bool:
        return self.off is not None and os.path.exists(self.off)

    @property
    def takes_checkpoints(self) -> bool:
        return self.checkpoints

    def adopt(self) -> str | None:
        self._write("adopt")
        return self.adopts

    def begin(self) -> None:
        self._write("begin")

    def open(self, opening: Opening) -> str:
        run = opening.run_id or f"run-{os.getpid()}-{time.time_ns()}"
        self._write("open", **{**vars(opening), "run": run})
        self.run = run
        return run

    def log_parameters(self, parameters: Any) -> None:
        self._write("log_parameters", parameters=dict(parameters))

    def log_metrics(self, points: Sequence[Point]) -> None:
        self._write("log_metrics", points)

    def log_text(self, points: Sequence[Point]) -> None:
        self._write("log_text", points)

    def log_summary(self, points: Sequence[Point]) -> None:
        self._write("log_summary", points)

    def log_files(self, upload: Upload) -> None:
        files = {
            str(file.relative_to(upload.path)): file.read_text("utf-8")
            for file in sorted(upload.path.rglob("*"))
            if file.is_file()
        }
        self._write("log_files", name=upload.name, step=upload.step, files=files)

    def close(self, status: Any) -> None:
        self._write("close", status=status)

    def release(self) -> None:
        self._write("release")

    def _write(self, call: str, points: Sequence[Point] = (), **what: Any) -> None:
        error = self._error_of(call, points)
        time.sleep(self.delay)
        line = {"call": call, "run": self.run, "pid": os.getpid(), "thread": get_ident()}
        line |= {"at": time.monotonic(), "points": points, "failed": error is not None, **what}
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, json.dumps(line, default=str).encode() + b"\n")  # as a whole
        os.close(file)
        if error is not None:
            raise error

    def _error_of(self, call: str, points: Sequence[Point]) -> Exception | None:
        """Return the error that `call` ends with, if any; hang where it is to."""
        concerned = self.point is None or any(point.name == self.point for point in points)
        if not concerned or self._recovered():
            return None
        if call == self.hang:
            hangs(Path(self.path)).touch()
            while not self._recovered():
                if LET_GO.wait(0.02):
                    raise TimeoutError("the test has ended")
        elif self.fail == call or (self.fail == "all" and call not in OF_THE_TRAINING):
            self.failures[call] += 1
            if self.times is None or self.failures[call] <= self.times:
                return _ERRORS[self.error](f"{call} fails")
        return None

    def _recovered(self) -> bool:
        return self.until is not None and os.path.exists(self.until)


def tracked(
    out: Path,
    kind: type[FileTracker] = FileTracker,
    *,
    delivery: Any = "thread",
    open_limit: float = PATIENCE,
    flush_limit: float = PATIENCE,
    redact: Sequence[str] = (),
    **options: Any,
) -> TrackerCallback:
    """Return a callback whose tracker writes to `out`, and is made with the other `options`."""
    return TrackerCallback(
        kind(str(out), **options),
        delivery=delivery,
        open_limit=open_limit,
        flush_limit=flush_limit,
        redact=redact,
    )


def hangs(path: Path) -> Path:
    """Return the file that is there once a tracker that writes to `path` hangs."""
    return path.with_name(f"{path.name}.hangs")


def calls(path: Path, *names: str, failed: bool = False) -> list[dict[str, Any]]:
    """Return the calls that a tracker has written, in their order: of these names, or deliveries.

    Those that failed are left out, or are the ones that are returned.
    """
    if not path.exists():
        return []
    # A line that is being written may be seen in part.
    found = [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()]
    return [
        call
        for call in found
        if call["failed"] is failed
        and (call["call"] in names if names else call["call"] not in OF_THE_TRAINING)
    ]


def names_of_calls(path: Path) -> list[str]:
    return [call["call"] for call in calls(path)]


def points(path: Path) -> list[Point]:
    """Return all points that a tracker was sent, in their order."""
    return [Point(*point) for call in calls(path) for point in call["points"]]


def curve(path: Path, name: str = "train/loss") -> list[tuple[int, Any]]:
    """Return steps and values of what a tracker was sent under a name, in their order."""
    return [(point.step, point.value) for point in points(path) if point.name == name]


def expected(*steps: int) -> list[tuple[int, float]]:
    """Return the curve of the loss that a `Training` logs at these steps."""
    return [(step, 1 / (step + 1)) for step in steps]


def stored(path: Path, tells_duplicates: bool = True) -> list[tuple[str, int, Any]]:
    """Return what the tracker has of its last run: name, step and value of each point.

    It forgets points from a step on where it is opened so, and may tell duplicates by name, step,
    time and value.
    """
    kept: list[Point] = []
    seen: set[Any] = set()
    found = calls(path)
    for call in found:
        if call["run"] != found[-1]["run"]:
            continue
        if call["call"] == "open" and call["rewind_to"] is not None:
            kept = [point for point in kept if point.step < call["rewind_to"]]
            seen = {point[:4] for point in kept}
        for point in map(tuple, call["points"]):
            if not tells_duplicates or point[:4] not in seen:
                kept.append(Point(*point))
            seen.add(point[:4])
    return [(point.name, point.step, point.value) for point in kept]


def statuses(path: Path) -> list[str | None]:
    """Return how the run was closed, each time."""
    return [call["status"] for call in calls(path, "close")]


def runs(path: Path) -> set[str]:
    """Return the runs that a tracker has opened."""
    return {call["run"] for call in calls(path, "open")}


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of `callback_core.tracking`."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("callback_core.tracking")
    ]


class Model:
    """A model that has a configuration, with a secret among it."""

    class config:
        @staticmethod
        def to_dict() -> dict[str, Any]:
            return {"layers": 2, "hub_token": "secret of the model", "pad_token": "<pad>"}


@dataclass
class TrackedArguments(Arguments):
    """With something that is nobody's business."""

    hub_token: str | None = "not for trackers"
    learning_rate: float = 0.1


@dataclass
class Training:
    """A training by hand, which logs `loss = f(step)` at every step."""

    output_dir: Path
    callbacks: Sequence[Any]
    state: TrainerState = field(default_factory=lambda: TrainerState(max_steps=100))
    control: TrainerControl = field(default_factory=TrainerControl)
    loss: Callable[[int], float] = lambda step: 1 / (step + 1)

    def __post_init__(self) -> None:
        self.args = TrackedArguments(output_dir=str(self.output_dir), run_name="by hand")
        self.handler = CallbackHandler(
            [DefaultFlowCallback(), *self.callbacks], None, None, None, None
        )

    def fire(self, event: str, **kwargs: Any) -> None:
        getattr(self.handler, event)(self.args, self.state, self.control, **kwargs)

    def begin(self) -> None:
        self.fire("on_train_begin")
        self.fire("on_epoch_begin")

    def log(self, **logs: Any) -> None:
        self.fire("on_log", logs=logs)

    def step(self, **logs: Any) -> None:
        """Do an update step, and log `logs` at it, or the loss."""
        self.state.global_step += 1
        self.fire("on_step_end")
        self.log(**(logs or {"loss": self.loss(self.state.global_step)}))

    def end(self, error: BaseException | None = None) -> None:
        if error is not None:
            self.fire("on_exception", exception=error)
        self.fire("on_train_end")

    def save(self) -> Path:
        path = Path(self.output_dir) / f"checkpoint-{self.state.global_step}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "weights").write_text(f"of step {self.state.global_step}", "utf-8")
        self.fire("on_save", checkpoint_dir=str(path))
        return path

    def train(
        self, steps: int, error: BaseException | None = None, saying_so: bool = True
    ) -> Training:
        """Train so many steps; `error` is raised behind the last, with `on_exception` or not."""
        self.begin()
        for _ in range(steps):
            self.step()
        if error is None or saying_so:
            self.end(error)
        return self


def environment() -> dict[str, str]:
    """Return the environment in which another process imports what this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def python(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python, which finds here what it imports."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def script(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a script that finds here what it needs."""
    head = "import os, sys, signal, logging, warnings\nfrom pathlib import Path\n"
    head += "from tracking_for_tests import *\nfrom callback_core.tracking import *\n"
    head += "logging.basicConfig()\nfrom callback_core import *\n"
    return python("-c", head + code, *arguments)


def replay(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "callback_core.tracking.replay", *arguments)


def processes_about(path: Path) -> list[int]:
    """Return the processes whose command line names `path`, this one excepted.

    One that has just begun has no command line yet.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(path).encode() in entry.read_bytes() and int(entry.parent.name) != os.getpid():
                found.append(int(entry.parent.name))
    return found


def eventually(condition: Callable[[], Any]) -> bool:
    """Return whether `condition` comes true."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False
