"""Trainings that are killed at any instant and resumed: each point is there once."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tracking_for_tests import (
    PATIENCE,
    environment,
    eventually,
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
from tracking_for_tests import Training, tracked

path, delivery, dies_in = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
trackers = [
    tracked(path / name, rewinds=name == "rewinding", delay=0.005, delivery=delivery)
    for name in ("keeping", "rewinding")
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
        timeout=PATIENCE,
    )


def values(path: Path, tells_duplicates: bool = True) -> list[tuple[str, int, Any]]:
    """Return what a tracker has in order, but for what measures time."""
    found = stored(path, tells_duplicates)
    return sorted((n, s, None if n == "eval/runtime" else value) for n, s, value in found)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int, Any]]:
    path = tmp_path_factory.mktemp("undisturbed")
    assert train(path, "inline").returncode == 0
    found = values(path / "keeping")
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
    assert "file" not in done.stderr  # the tracker has nothing to report
    assert eventually(lambda: not processes_about(tmp_path))
    for tracker in ("keeping", "rewinding"):
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
            timeout=PATIENCE,
        )
        assert done.returncode == (0 if step < 0 else 9), done.stderr
    for tracker in ("keeping", "rewinding"):
        assert values(tmp_path / tracker, tells_duplicates=False) == undisturbed, tracker
        assert statuses(tmp_path / tracker) == ["failed"] * 3 + ["finished"]
