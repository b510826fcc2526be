"""A training that is killed twice ends like one that is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from training_to_kill import KINDS

SCRIPT = Path(__file__).with_name("training_to_kill.py")


def run(kind: str, directory: Path, kill_at: int = 0) -> int:
    command = [sys.executable, str(SCRIPT), kind, str(directory), str(kill_at)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode


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
