"""A training that torchrun starts again after kills of a rank is one run in MLflow."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import restarts

PATH = [os.path.abspath(one) for one in sys.path]


@pytest.mark.slow
def test_each_point_is_there_once_and_the_weights_are_those_of_an_undisturbed_training() -> None:
    command = [sys.executable, restarts.__file__, "--kills", "2", "--ranks", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATH)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[2:]]
    assert sum(int(row[1]) for row in rows) >= 2
    for _, _, status, runs, *checks in rows:
        assert (status, runs.split()[-1], checks) == ("0", "FINISHED", ["True", "True"])
