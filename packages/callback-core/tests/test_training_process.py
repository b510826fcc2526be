"""The process that trains, as a tracker sees it wherever it runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tracking_for_tests import Training, replay, script

from callback_core.tracking import training_process

TRACKER = """
import json, os, sys
from pathlib import Path
from callback_core.tracking import Tracker, training_process

class NotingTracker(Tracker):
    name = "noting"

    def __init__(self, path):
        self.path = path

    def settings(self):
        return {"path": self.path}

    def open(self, opening):
        seen = [os.getpid(), training_process(), sys.argv]
        Path(self.path).write_text(json.dumps(seen))
        if os.environ.get("FAILS"):
            raise ConnectionError("not now")
        return "run"

    def log_parameters(self, parameters):
        pass

    log_metrics = close = log_parameters
"""

TRAINING = """
sys.path.insert(0, sys.argv[1])
from noting import NotingTracker
from callback_core.tracking import TrackerCallback
path, delivery, limit = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
callback = TrackerCallback(NotingTracker(str(path / "seen")), delivery=delivery, flush_limit=limit)
Training(path / "out", [callback]).train(3)
print(os.getpid())
"""


def seen(tmp_path: Path, delivery: str, limit: float = 300.0) -> tuple[int, list[Any], str]:
    """Train, and return the id of the training, what its tracker saw, and the output."""
    (tmp_path / "noting.py").write_text(TRACKER)
    done = script("import os\n" + TRAINING, tmp_path, delivery, str(limit))
    assert done.returncode == 0, done.stderr
    return int(done.stdout), json.loads((tmp_path / "seen").read_text()), done.stderr


@pytest.mark.slow
def test_a_delivery_process_has_the_training_s_id_and_command_line(tmp_path: Path) -> None:
    training, (own, trains, command_line), _ = seen(tmp_path, "process")
    assert own != training
    assert trains == training
    assert command_line[1:] == [str(tmp_path), "process", "300.0"]


@pytest.mark.slow
def test_a_replay_follows_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("FAILS", "1")
        seen(tmp_path, "thread", limit=0.1)
    monkeypatch.syspath_prepend(tmp_path)
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    own, trains, command_line = json.loads((tmp_path / "seen").read_text())
    assert trains is None
    assert own != os.getpid()
    assert str(tmp_path / "out") in command_line


def test_a_thread_is_in_the_process_that_trains(tmp_path: Path) -> None:
    Training(tmp_path, []).train(1)
    assert training_process() == os.getpid()
