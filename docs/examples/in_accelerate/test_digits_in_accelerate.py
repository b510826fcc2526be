from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import digits_in_accelerate
import pytest
import wandb
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import callback_mlflow
import callback_tensorboard
import callback_wandb
from callback_contract.testing import environment, wait_until

INSTALLED = (callback_mlflow, callback_tensorboard, callback_wandb, wandb)
"""What the example finds by its name."""

STEPS_OF_EPOCH = 45


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    variables = {"MLFLOW_TRACKING_URI": uri(folder), "WANDB_MODE": "offline"}
    return subprocess.Popen(
        [sys.executable, digits_in_accelerate.__file__, "--output-dir", "out", *options],
        env=environment(**variables),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def uri(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def steps_in_mlflow(folder: Path, key: str) -> list[int]:
    client = MlflowClient(uri(folder))
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return [metric.step for metric in client.get_metric_history(run.info.run_id, key)]


def steps_in_tensorboard(folder: Path, key: str) -> list[int]:
    (written,) = (folder / "out" / "runs").iterdir()
    return [event.step for event in EventAccumulator(str(written)).Reload().Scalars(key)]


def progress(folder: Path, tracker: str) -> dict:
    (path,) = (folder / "out" / "tracking").glob(f"*/{tracker}.progress.json")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_the_killed_and_resumed_example_is_one_run_with_each_point_once(tmp_path: Path) -> None:
    MlflowClient(uri(tmp_path)).search_experiments()  # a kill must not hit it making its tables
    killed = start(tmp_path, "--epochs", "200")
    try:
        saved = tmp_path / "out" / "checkpoints" / "epoch_2" / "random_states_0.pkl"
        wait_until(lambda: saved.exists() or killed.poll() is not None)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
    newest = max(int(one.parent.name[6:]) for one in tmp_path.glob("out/checkpoints/*/random*"))
    for half in (tmp_path / "out" / "checkpoints").iterdir():  # that the kill cut off
        if int(half.name[6:]) > newest:
            half.rename(tmp_path / "half")
    epochs = newest + 3
    resumed = start(tmp_path, "--epochs", str(epochs), "--resume")
    output, _ = resumed.communicate()
    assert resumed.returncode == 0, output

    losses = list(range(1, epochs * STEPS_OF_EPOCH + 1))
    accuracies = list(range(STEPS_OF_EPOCH, len(losses) + 1, STEPS_OF_EPOCH))
    readers: list[Callable[[Path, str], list[int]]] = [steps_in_mlflow, steps_in_tensorboard]
    for steps_in in readers:
        assert steps_in(tmp_path, "train/loss") == losses
        assert steps_in(tmp_path, "eval/accuracy") == accuracies
    assert progress(tmp_path, "wandb")["status"] == "finished", output
