"""The example of the README runs, and adds few lines."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from lightning_for_tests import PATHS

import callback_mlflow

INSTALLED = (callback_mlflow,)
"""What the example imports."""

README = Path(__file__).parents[1] / "README.md"
MOST_LINES = 10


def example() -> list[str]:
    found = re.search(r"^```diff\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    return found[1].splitlines()


def test_a_user_adds_few_lines() -> None:
    assert 0 < len([line for line in example() if line.startswith("+")]) <= MOST_LINES


@pytest.mark.slow
def test_the_example_runs_before_and_after(tmp_path: Path) -> None:
    for mark in "-+":
        folder = tmp_path / ("before" if mark == "-" else "after")
        folder.mkdir()
        code = "\n".join(line[1:] for line in example() if line[:1] in ("", " ", mark))
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "PYTHONPATH": PATHS,
        }
        command = [sys.executable, "-c", code]
        subprocess.run(command, cwd=folder, env=environment, check=True, timeout=300)
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            query = "select step from metrics where key = 'train/loss' order by step"
            if mark == "+":
                assert [step for (step,) in database.execute(query)] == [*range(1, 41)]
