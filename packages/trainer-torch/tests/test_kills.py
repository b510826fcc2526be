"""A training that is killed ends like one that is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import kills
import pytest
from kills import Child
from training_to_kill import KINDS, Kind, Plain

pytestmark = pytest.mark.slow

IN_TESTS = [kind for kind in KINDS if KINDS[kind].ranks == 1]
IN_TESTS.append("four ranks, sharded and saved while training")


@pytest.mark.parametrize("kind", IN_TESTS)
def test_weights_logs_and_callbacks_are_the_same_after_two_kills(tmp_path: Path, kind: str) -> None:
    assert Child(kind, tmp_path / "whole").wait() == 0
    killed = tmp_path / "killed"
    steps = (2, 3) if kind == "accumulation" else (3, 6)
    assert [Child(kind, killed, kill_at=step).wait() for step in steps] == [-signal.SIGKILL] * 2
    assert Child(kind, killed).wait() == 0
    whole = (tmp_path / "whole" / "result.json").read_text()
    assert (killed / "result.json").read_text() == whole


def test_the_overflows_of_the_killed_training_skip_steps(tmp_path: Path) -> None:
    assert Child("fp16 with overflows", tmp_path).wait() == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["precision"]["scale"] == 2.0**16 / 2**3


def test_the_command_kills_at_random_instants() -> None:
    path = os.pathsep.join([str(Path(kills.__file__).parent), *map(os.path.abspath, sys.path)])
    kind = "workers and saved while training"
    command = [sys.executable, kills.__file__, "--kills", "2", "--kinds", kind]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert cells[:2] == [kind, "2"]
    assert cells[3] == cells[4]


class Forgets(Plain):
    """Adds noise that nothing saves."""

    def __getitem__(self, index: int) -> Any:
        features, label = super().__getitem__(index)
        return features + os.urandom(1)[0], label


def test_a_training_that_does_not_end_the_same_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "forgets", Kind(dataset=Forgets))
    assert kills.main(["--kills", "1", "--kinds", "forgets"]) == 1
