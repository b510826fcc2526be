"""Trainings that are killed at any instant and resumed: each point is there once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tracking_for_tests import (
    environment,
    eventually,
    kill,
    points,
    processes_about,
    statuses,
    stored,
)

pytestmark = pytest.mark.slow

STEPS = 60

TRAINING = f"""
import json, os, signal, sys, threading, time
from pathlib import Path
from callback_core import TrainerState
from callback_core.tracking import TrackerCallback
from tracking_for_tests import FileTracker, Rewinding, Training

path, delivery, dies_in = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
trackers = [
    TrackerCallback(kind(str(path / kind.__name__), delay=0.005), delivery=delivery)
    for kind in (FileTracker, Rewinding)
]
checkpoint = path / "checkpoint.json"
kept = json.loads(checkpoint.read_text()) if checkpoint.exists() else None
state = TrainerState(max_steps={STEPS}, global_step=kept["step"] if kept else 0)
weight = kept["weight"] if kept else 1.0
if kept:
    for tracker, tracker_state in zip(trackers, kept["trackers"]):
        tracker.load_state_dict(tracker_state)
training = Training(path, trackers, state, loss=lambda step: weight)
threading.Timer(dies_in, os.kill, (os.getpid(), signal.SIGKILL)).start() if dies_in else None
training.begin()
while state.global_step < {STEPS}:
    weight = (weight * 3.7 * (1 - weight / 2)) or 0.3
    time.sleep(0.003)
    training.step()
    if state.global_step % 10 == 0:
        training.log(eval_loss=weight / 2, eval_runtime=time.perf_counter())
    if state.global_step % 7 == 0:
        kept = dict(step=state.global_step, weight=weight)
        kept["trackers"] = [tracker.state_dict() for tracker in trackers]
        (path / "beside").write_text(json.dumps(kept))
        os.replace(path / "beside", checkpoint)
        training.fire("on_save")
training.fire("on_train_end")
"""


def train(path: Path, delivery: str, dies_in: float = 0.0) -> subprocess.CompletedProcess[str]:
    path.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", TRAINING, str(path), delivery, str(dies_in)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def values(path: Path, tells_duplicates: bool = True) -> list[tuple[str, int, Any]]:
    """Return what a tracker has in order, but for what measures time."""
    found = stored(path, tells_duplicates)
    return sorted((n, s, None if n == "eval/runtime" else value) for n, s, value in found)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int, Any]]:
    path = tmp_path_factory.mktemp("undisturbed")
    assert train(path, "inline").returncode == 0
    found = values(path / "FileTracker")
    assert len(found) == len({point[:2] for point in found}) == STEPS + 2 * (STEPS // 10)
    return found


@pytest.mark.parametrize("delivery", ["thread", "process", "inline"])
def test_killed_at_any_instant_and_resumed_each_point_is_there_once(
    tmp_path: Path, delivery: str, undisturbed: list[tuple[str, int, Any]]
) -> None:
    instants = random.Random(f"kill {delivery}")
    for _ in range(6):
        done = train(tmp_path, delivery, instants.uniform(0.01, 0.4))
        if done.returncode == 0:
            break
    done = train(tmp_path, delivery)
    assert done.returncode == 0
    assert "Training was not affected" not in done.stderr
    assert eventually(lambda: not processes_about(tmp_path))
    for tracker in ("FileTracker", "Rewinding"):
        assert values(tmp_path / tracker) == undisturbed, tracker
        assert statuses(tmp_path / tracker)[-1] == "finished"


@pytest.mark.parametrize("delivery", ["thread", "process"])
def test_interrupted_properly_no_tracker_needs_to_tell_duplicates(
    tmp_path: Path, delivery: str, undisturbed: list[tuple[str, int, Any]]
) -> None:
    """Where each attempt was closed, nothing is sent twice that comes out as before."""
    code = TRAINING.replace("time.sleep(0.003)", "stop_at(state.global_step)")
    code = code.replace(
        "while state",
        "def stop_at(step):\n    if step == int(sys.argv[4]): raise SystemExit(9)\nwhile state",
        1,
    )
    for step in (10, 33, 34, -1):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), delivery, "0", str(step)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == (0 if step < 0 else 9), done.stderr
    for tracker in ("FileTracker", "Rewinding"):
        assert values(tmp_path / tracker, tells_duplicates=False) == undisturbed, tracker
        assert statuses(tmp_path / tracker) == ["failed"] * 3 + ["finished"]


def test_a_sidecar_delivers_what_a_killed_training_left_and_closes_it_as_failed(
    tmp_path: Path,
) -> None:
    assert train(tmp_path, "process", dies_in=0.15).returncode != 0
    assert eventually(lambda: not processes_about(tmp_path))
    journal = next(tmp_path.glob("tracking/*/journal.jsonl"))
    logged = journal.read_text("utf-8").count('"loss"')
    for tracker in ("FileTracker", "Rewinding"):
        assert [p.name for p in points(tmp_path / tracker)].count("train/loss") == logged
        assert statuses(tmp_path / tracker) == ["failed"]


HANGING = """
import sys, time
from pathlib import Path
from callback_core.tracking import TrackerCallback
from tracking_for_tests import FileTracker, Training

path = Path(sys.argv[1])
tracker = FileTracker(str(path / "out"), hang="log_metrics", until=str(path / "up"))
training = Training(path, [TrackerCallback(tracker, delivery="process", open_limit=1.5)])
training.begin()
training.step()
print("logged", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("recovers", [True, False])
def test_a_sidecar_whose_tracker_hangs_begins_anew_and_gives_up_at_last(
    tmp_path: Path, recovers: bool
) -> None:
    training = subprocess.Popen(
        [sys.executable, "-c", HANGING, str(tmp_path)],
        env=environment(),
        stdout=subprocess.PIPE,
    )
    try:
        assert training.stdout is not None
        training.stdout.readline()
        assert eventually(lambda: (tmp_path / "out").exists())
        time.sleep(0.2)
        if recovers:
            (tmp_path / "up").touch()
    finally:
        training.kill()
        training.communicate()
    assert eventually(lambda: not processes_about(tmp_path))
    assert statuses(tmp_path / "out") == (["failed"] if recovers else [])
    assert len(points(tmp_path / "out")) == recovers
    [log] = tmp_path.glob("tracking/*/file.log")
    assert "log_metrics has not come back" in log.read_text("utf-8")


def test_a_sidecar_that_is_killed_is_said_and_what_is_pending_kept(tmp_path: Path) -> None:
    code = HANGING.replace(
        "time.sleep(1000)", "sys.stdin.readline()\ntraining.fire('on_train_end')"
    )
    training = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert training.stdout is not None
        training.stdout.readline()
        # One that has just begun has no command line yet.
        assert eventually(lambda: len(processes_about(tmp_path)) == 2)
        kill(pid for pid in processes_about(tmp_path) if pid != training.pid)
        _, errors = training.communicate("\n", timeout=60)
    finally:
        training.kill()
    assert training.returncode == 0
    assert "file has not got 1 points (its process ended with -9" in errors
    assert processes_about(tmp_path) == []
