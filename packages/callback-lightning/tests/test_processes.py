"""Two processes of Lightning on the CPU, which gloo connects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import training_of_two
from lightning_for_tests import PATHS, runs_in


@pytest.mark.slow
@pytest.mark.parametrize(("how", "strategy"), [("callbacks", "ddp"), ("logger", "ddp_spawn")])
def test_one_process_tracks_and_both_do_what_either_asks_for(
    how: str, strategy: str, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": PATHS}
    command = [sys.executable, training_of_two.__file__, str(tmp_path), how, strategy]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    main, other = (json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1))
    assert main["steps"] == other["steps"] == [1, 2, 3, 4, 5, 6]
    assert main["logs"] == other["logs"] == [1, 2, 3, 4, 5, 6]
    assert (main["saved"], other["saved"]) == ([2, 4], [2])
    assert (main["dummy"], other["dummy"]) == (how == "callbacks", True)
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert (run.steps("train/loss"), run.status) == ([1, 2, 3, 4, 5, 6], "finished")
    assert [(name, step) for name, step, _ in run.uploads] == [
        ("checkpoint-2", 2),
        ("epoch=0-step=4", 4),
    ]
