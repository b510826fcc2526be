from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import digits_in_accelerate
import pytest
import wandb
from mlflow import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import callback_mlflow
import callback_tensorboard
import callback_wandb
from callback_contract.testing import PreparedPython, environment, wait_until

INSTALLED = (callback_mlflow, callback_tensorboard, callback_wandb, wandb)
"""What the example finds by its name."""

STEPS_OF_EPOCH = 45


@pytest.fixture
def prepared() -> Iterator[PreparedPython]:
    """Return what runs the example in a process of its own, with its slow modules imported."""
    modules = ["accelerate", "mlflow", "sklearn.datasets", "torch.utils.tensorboard", "wandb"]
    with PreparedPython(modules, environment(WANDB_MODE="offline")) as running:
        yield running


def start(prepared: PreparedPython, folder: Path, *options: str) -> int:
    variables = {"MLFLOW_TRACKING_URI": uri(folder)}
    options = ("--output-dir", "out", *options)
    return prepared.start(digits_in_accelerate.__file__, *options, cwd=folder, variables=variables)


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
def test_the_killed_and_resumed_example_is_one_run_with_each_point_once(
    prepared: PreparedPython, tmp_path: Path
) -> None:
    MlflowClient(uri(tmp_path)).search_experiments()  # a kill must not hit it making its tables
    killed = start(prepared, tmp_path, "--epochs", "200")
    try:
        saved = tmp_path / "out" / "checkpoints" / "epoch_2" / "random_states_0.pkl"
        wait_until(lambda: saved.exists() or prepared.has_ended())
    finally:
        if not prepared.has_ended():
            os.kill(killed, signal.SIGKILL)
        prepared.wait()
    newest = max(int(one.parent.name[6:]) for one in tmp_path.glob("out/checkpoints/*/random*"))
    for half in (tmp_path / "out" / "checkpoints").iterdir():  # that the kill cut off
        if int(half.name[6:]) > newest:
            half.rename(tmp_path / "half")
    epochs = newest + 3
    start(prepared, tmp_path, "--epochs", str(epochs), "--resume")
    resumed = prepared.wait()
    assert resumed.returncode == 0, resumed.stderr

    losses = list(range(1, epochs * STEPS_OF_EPOCH + 1))
    accuracies = list(range(STEPS_OF_EPOCH, len(losses) + 1, STEPS_OF_EPOCH))
    readers: list[Callable[[Path, str], list[int]]] = [steps_in_mlflow, steps_in_tensorboard]
    for steps_in in readers:
        assert steps_in(tmp_path, "train/loss") == losses
        assert steps_in(tmp_path, "eval/accuracy") == accuracies
    assert progress(tmp_path, "wandb")["status"] == "finished", resumed.stderr
