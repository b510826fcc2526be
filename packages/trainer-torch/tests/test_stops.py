"""A training that a signal stops ends as it should, and resumes like one that was not stopped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import stops
import training_to_stop

COMMAND = Path(stops.__file__)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(COMMAND.parent), *sys.path])}
SWALLOWS = """
import sys, stops, training_to_stop as trainings
class Swallows(trainings.Stopped):
    def training_step(self, *args, **kwargs):
        self.run.signals.received = None
        return super().training_step(*args, **kwargs)
trainings.Stopped = Swallows
sys.exit(stops.main("--signals SIGTERM --targets group --limits 0 --instants 0".split()
                    + ["--phases", "on_train_begin"]))
"""


def rows(*arguments: str) -> list[list[str]]:
    """Return the cells of the tables that the command prints."""
    command = [sys.executable, str(COMMAND), *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.slow
def test_a_signal_stops_a_training_before_in_and_after_its_steps() -> None:
    phases = ["its optimizer is made", "eval_on_start", "a save", "the last log", "on_train_end"]
    rest = ["--targets", "process", "group", "--instants", "0", "--limits", "0"]
    found = rows("--signals", "SIGTERM", "--phases", *phases, *rest)
    assert [row[0] for row in found if row[0] in phases] == phases


@pytest.mark.slow
def test_a_signal_to_one_rank_or_to_torchrun_stops_all_ranks() -> None:
    targets = ["rank 1", "torchrun"]
    rest = ["--phases", "a step", "--instants", "0", "--limits", "0"]
    found = rows("--signals", "SIGUSR1", "--targets", *targets, *rest)
    assert [row[1] for row in found if row[0] == "a step"] == targets


@pytest.mark.slow
def test_stops_at_random_instants_are_exact_and_time_limits_are_kept() -> None:
    phases = ["--targets", "process", "--signals", "SIGINT", "--phases", "the Trainer is made"]
    found = rows(*phases, "--instants", "2", "--limits", "2")
    assert found[-1][-1] == "2"


@pytest.mark.slow
def test_a_training_that_swallows_a_signal_is_told() -> None:
    assert training_to_stop.PHASES
    done = subprocess.run([sys.executable, "-c", SWALLOWS], env=ENVIRONMENT, capture_output=True)
    assert done.returncode == 1
