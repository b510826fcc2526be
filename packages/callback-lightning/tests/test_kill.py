"""A training that is killed, and resumed by `ckpt_path`, is one curve in each store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import training_to_kill
from lightning_for_tests import BATCHES, PATHS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def train(root: Path, how: str, kill_at: int) -> int:
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db",
        "PYTHONPATH": PATHS,
    }
    command = [sys.executable, training_to_kill.__file__, str(root), how, str(kill_at)]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.parametrize("how", ["callbacks", "logger"])
def test_each_point_is_once_in_each_store(how: str, tmp_path: Path) -> None:
    assert train(tmp_path, how, 2 * BATCHES + 3) == -signal.SIGKILL
    assert train(tmp_path, how, -1) == 0
    import mlflow  # takes seconds

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs(["0"])
    steps = [*range(1, 3 * BATCHES + 1)]
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(metric.step for metric in curve) == steps
    evaluations = client.get_metric_history(run.info.run_id, "eval/loss")
    assert sorted(metric.step for metric in evaluations) == steps[BATCHES - 1 :: BATCHES]
    assert run.info.status == "FINISHED"
    (directory,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(directory)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == steps
