"""A process of its own that really runs: it outlives its training, and a tracker that hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tracking_for_tests import (
    PATIENCE,
    calls,
    environment,
    eventually,
    hangs,
    points,
    processes_about,
    runs,
    script,
    statuses,
)

from callback_core.tracking.delivery.process import MOST_RESTARTS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("steps", [1, 30])
def test_what_a_killed_training_left_is_delivered_and_closed_as_failed(
    tmp_path: Path, steps: int
) -> None:
    """After one step, no process is up yet: it only begins to import."""
    done = script(
        "path, steps = Path(sys.argv[1]), int(sys.argv[2])\n"
        "trackers = {'keeping': False, 'rewinding': True}\n"
        "callbacks = [\n"
        "    tracked(path / file, rewinds=rewinds, delivery='process')\n"
        "    for file, rewinds in trackers.items()\n"
        "]\n"
        "training = Training(path, callbacks)\n"
        "training.begin()\n"
        "for _ in range(steps): training.step()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        tmp_path,
        str(steps),
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    for tracker in ("keeping", "rewinding"):
        out = tmp_path / tracker
        assert eventually(lambda out=out: statuses(out))
        assert statuses(out) == ["failed"]
        logged = [point.step for point in points(out) if point.name == "train/loss"]
        assert logged == list(range(1, steps + 1))


HANGING = """
import sys
from pathlib import Path
from callback_core.tracking import TrackerCallback
from tracking_for_tests import FileTracker, Training

path = Path(sys.argv[1])
tracker = FileTracker(str(path / "out"), hang="log_metrics", until=str(path / "up"))
delivery = TrackerCallback(
    tracker, delivery="process", open_limit=float(sys.argv[2]), flush_limit=float(sys.argv[3])
)
training = Training(path, [delivery])
training.begin()
training.step()
sys.stdin.readline()
training.fire("on_train_end")
"""


@contextmanager
def training_whose_tracker_hangs(
    path: Path, open_limit: float, flush_limit: float = PATIENCE
) -> Iterator[subprocess.Popen[str]]:
    """Start a training that ends when it is given a line, once its tracker hangs."""
    training = subprocess.Popen(
        [sys.executable, "-c", HANGING, str(path), str(open_limit), str(flush_limit)],
        env=environment(),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert eventually(hangs(path / "out").exists)
        yield training
    finally:
        training.kill()
        training.communicate()


@pytest.mark.parametrize(("recovers", "limit"), [(True, 2.0), (False, 1.0)])
def test_it_begins_again_where_a_tracker_hangs_and_gives_up_at_last(
    tmp_path: Path, recovers: bool, limit: float
) -> None:
    out = tmp_path / "out"

    def hung() -> int:
        [log] = tmp_path.glob("tracking/*/file.log")
        return log.read_text("utf-8").count("log_metrics")

    with training_whose_tracker_hangs(tmp_path, limit):
        assert eventually(hung)
        if recovers:
            (tmp_path / "up").touch()
    assert eventually(lambda: statuses(out) if recovers else hung() > MOST_RESTARTS)
    assert statuses(out) == (["failed"] if recovers else [])
    assert len(points(out)) == recovers
    assert hung() in (range(1, MOST_RESTARTS + 1) if recovers else [MOST_RESTARTS + 1])
    assert len(runs(out)) == 1
    assert len(calls(out, "open")) == hung() + recovers


def test_one_that_is_killed_is_said_and_what_is_pending_is_kept(tmp_path: Path) -> None:
    with training_whose_tracker_hangs(tmp_path, open_limit=PATIENCE) as training:
        [sidecar] = [pid for pid in processes_about(tmp_path) if pid != training.pid]
        os.kill(sidecar, signal.SIGKILL)
        _, errors = training.communicate("\n", timeout=PATIENCE)
    assert training.returncode == 0
    assert errors.count("1 points") == 1
    assert f"{-signal.SIGKILL}" in errors
    assert str(tmp_path) in errors
