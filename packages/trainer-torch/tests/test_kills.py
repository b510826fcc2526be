"""A training that is killed ends like one that is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import kills
import pytest
import training_to_kill
from training_to_kill import KINDS

SCRIPT, COMMAND = Path(training_to_kill.__file__), Path(kills.__file__)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(COMMAND.parent), *sys.path])}
FORGETS = """
import os, sys, kills, training_to_kill as trainings
class Forgets(trainings.Plain):
    def __getitem__(self, index):
        features, label = super().__getitem__(index)
        return features + os.urandom(1)[0], label
trainings.KINDS["forgets"] = (trainings.Trainer, Forgets, {})
sys.exit(kills.main(["--kills", "1", "--kinds", "forgets"]))
"""


def run(kind: str, directory: Path, kill_at: int = 0) -> int:
    command = [sys.executable, str(SCRIPT), kind, str(directory), str(kill_at)]
    return subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL).returncode


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_weights_logs_and_callbacks_are_the_same_after_two_kills(tmp_path: Path, kind: str) -> None:
    assert run(kind, tmp_path / "whole") == 0
    killed = tmp_path / "killed"
    steps = (2, 3) if kind == "accumulation" else (3, 6)
    assert [run(kind, killed, step) for step in steps] == [-signal.SIGKILL] * 2
    assert run(kind, killed) == 0
    whole = (tmp_path / "whole" / "result.json").read_text()
    assert (killed / "result.json").read_text() == whole


@pytest.mark.slow
def test_the_overflows_of_the_killed_training_skip_steps(tmp_path: Path) -> None:
    assert run("fp16 with overflows", tmp_path) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["precision"]["scale"] == 2.0**16 / 2**3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_kills_at_random_instants_are_exact(kind: str) -> None:
    command = [sys.executable, str(COMMAND), "--kills", "2", "--kinds", kind]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert cells[:2] == [kind, "2"]
    assert cells[3] == cells[4]


@pytest.mark.slow
def test_a_training_that_does_not_end_the_same_is_told() -> None:
    done = subprocess.run([sys.executable, "-c", FORGETS], env=ENVIRONMENT, capture_output=True)
    assert done.returncode == 1
