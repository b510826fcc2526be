"""The first example of the README: a tracker in transformers' Trainer, killed and run again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callback_core import get_last_checkpoint

ROOT = Path(__file__).parents[2]
OUTPUT_DIR = "digits_in_transformers"


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, str(ROOT / "docs/examples/in_transformers.py")]
    return subprocess.Popen(command, cwd=folder, env=environment)


@pytest.mark.slow
def test_a_training_that_was_killed_continues_its_curve(tmp_path: Path) -> None:
    killed = start(tmp_path)
    try:
        while get_last_checkpoint(tmp_path / OUTPUT_DIR) is None:
            with pytest.raises(subprocess.TimeoutExpired):
                killed.wait(0.1)
    finally:
        killed.kill()
        killed.wait()
    assert start(tmp_path).wait(300) == 0
    [run] = (tmp_path / OUTPUT_DIR / "runs").iterdir()
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    steps = [event.step for event in events.Scalars("train/loss")]
    assert steps == list(range(5, 201, 5))
