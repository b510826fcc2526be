"""Trackers that write to a file, a training by hand that they are told of, and how to run one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from arguments_for_tests import Arguments

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    NotConfigured,
    TrainerControl,
    TrainerState,
)
from callback_core.tracking import Limits, Opening, Point, Rejected, Tracker, Upload, import_sdk

PATIENCE = 300.0
"""Seconds after which what a test waits for is taken to hang. Waiting ends when it happens."""

LET_GO = Event()
"""When it is set, trackers of this process that hang come back, so that their threads end."""


class FileTracker(Tracker):
    """Writes a line of JSON for each call.

    Args:
        path: The file.
        delay: Seconds that each call takes.
        hang: The method that does not come back; `hangs` tells that it was called.
        fail: The method that fails, or `all`.
        until: A file that ends hanging and failing, once it is there.
    """

    name = "file"

    def __init__(
        self,
        path: str,
        delay: float = 0.0,
        hang: str | None = None,
        fail: str | None = None,
        until: str | None = None,
    ) -> None:
        self.path, self.delay, self.hang, self.fail, self.until = path, delay, hang, fail, until

    def settings(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "delay": self.delay,
            "hang": self.hang,
            "fail": self.fail,
            "until": self.until,
        }

    def open(self, opening: Opening) -> str:
        self.run = opening.run_id or f"run-{os.getpid()}-{time.time_ns()}"
        self._write("open", rewind_to=opening.rewind_to, step=opening.step)
        return self.run

    def log_parameters(self, parameters: Any) -> None:
        self._write("log_parameters", parameters=dict(parameters))

    def log_metrics(self, points: Sequence[Point]) -> None:
        self._write("log_metrics", points=points)

    def log_text(self, points: Sequence[Point]) -> None:
        self._write("log_text", points=points)

    def log_files(self, upload: Upload) -> None:
        files = {
            str(file.relative_to(upload.path)): file.read_text("utf-8")
            for file in sorted(upload.path.rglob("*"))
            if file.is_file()
        }
        self._write("log_files", name=upload.name, step=upload.step, files=files)

    def close(self, status: Any) -> None:
        self._write("close", status=status)

    def _write(self, call: str, **what: Any) -> None:
        recovered = self.until is not None and os.path.exists(self.until)
        if self.hang == call and not recovered:
            hangs(Path(self.path)).touch()
            LET_GO.wait()
            raise TimeoutError("the test has ended")
        if self.fail in (call, "all") and not recovered:
            raise ConnectionError("the service is down")
        time.sleep(self.delay)
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        line = json.dumps({"call": call, "run": self.run, **what})
        os.write(file, line.encode() + b"\n")  # as a whole
        os.close(file)


class Rewinding(FileTracker):
    """Can forget points from a step on: whoever reads its file with `stored` sees to that."""

    rewinds = True


class Keeping(FileTracker):
    """Keeps checkpoints."""

    @property
    def takes_checkpoints(self) -> bool:
        return True


class WithoutSDK(FileTracker):
    """Is installed without what it needs, until a file is there."""

    def open(self, opening: Opening) -> str:
        if not Path(self.path).with_name("mended").exists():
            import_sdk("lines_sdk", install="lines-sdk", needed_by="LinesCallback")
        return super().open(opening)


class WithoutKey(FileTracker):
    """Has no key, until a file is there."""

    def open(self, opening: Opening) -> str:
        if not Path(self.path).with_name("mended").exists():
            raise NotConfigured("LinesCallback needs LINES_KEY")
        return super().open(opening)


class Choosy(FileTracker):
    """Takes little, and never a point named `train/bad`."""

    limits = Limits(
        batch_size=3,
        parameter_length=8,
        parameter_count=3,
        key_characters=r"\w/",
        key_length=12,
        non_finite=False,
    )
    error: type[Exception] = Rejected

    def log_metrics(self, points: Sequence[Point]) -> None:
        if any(point.name == "train/bad" for point in points):
            raise self.error("no such name")
        super().log_metrics(points)


class Spoilt(Choosy):
    """The same, but does not say that it is for ever."""

    error = RuntimeError


def hangs(path: Path) -> Path:
    """Return the file that is there once a tracker that writes to `path` hangs."""
    return path.with_name(f"{path.name}.hangs")


def calls(path: Path) -> list[dict[str, Any]]:
    """Return the calls that a tracker has written, in their order."""
    if not path.exists():
        return []
    # A line that is being written may be seen in part.
    return [json.loads(line) for line in path.read_bytes().rpartition(b"\n")[0].splitlines()]


def names_of_calls(path: Path) -> list[str]:
    return [call["call"] for call in calls(path)]


def points(path: Path) -> list[Point]:
    """Return all points that a tracker was sent, in their order."""
    return [Point(*point) for call in calls(path) for point in call.get("points", ())]


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
        for point in map(tuple, call.get("points", ())):
            if not tells_duplicates or point[:4] not in seen:
                kept.append(Point(*point))
            seen.add(point[:4])
    return [(point.name, point.step, point.value) for point in kept]


def statuses(path: Path) -> list[str | None]:
    """Return how the run was closed, each time."""
    return [call["status"] for call in calls(path) if call["call"] == "close"]


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

    def step(self) -> None:
        self.state.global_step += 1
        self.fire("on_step_end")
        self.log(loss=self.loss(self.state.global_step))

    def save(self) -> Path:
        path = Path(self.output_dir) / f"checkpoint-{self.state.global_step}"
        path.mkdir(parents=True)
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
        if error is not None and saying_so:
            self.fire("on_exception", exception=error)
        if error is None or saying_so:
            self.fire("on_train_end")
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
