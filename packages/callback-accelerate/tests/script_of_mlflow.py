"""A script of Accelerate that logs to MLflow: `script_of_mlflow.py FOLDER [kill | resume]`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from mlflow import MlflowClient

from callback_accelerate import continue_runs, register_trackers
from callback_contract.testing import wait_until


def main(folder: Path, how: str = "") -> None:
    """Train a line for 10 steps, with a checkpoint after step 4."""
    register_trackers()
    names = ["callback_mlflow", "callback_tensorboard"]
    accelerator = Accelerator(log_with=names, project_dir=str(folder / "out"), cpu=True)
    continue_runs(accelerator)
    accelerator.init_trackers(
        "lines", {"lr": 0.1}, init_kwargs={"callback_mlflow": {"run_name": "one"}}
    )
    x = torch.linspace(-1, 1, 64).reshape(-1, 1)
    model = torch.nn.Linear(1, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    if how == "resume":
        accelerator.load_state(str(folder / "checkpoint"))
    for step in range(5 if how == "resume" else 0, 10):
        loss = torch.nn.functional.mse_loss(model(x), 3 * x)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        accelerator.log({"loss": loss}, step=step)
        if step == 4:
            accelerator.save_state(str(folder / "checkpoint"))
        if step == 7 and how == "kill":
            kill_when_delivered(accelerator.get_tracker("callback_mlflow", unwrap=True))
    accelerator.end_training()


def kill_when_delivered(callback: Any) -> None:
    """Wait until MLflow has the points of 8 steps, and kill this process."""
    wait_until(lambda: callback.run_id and len(history(callback.run_id)) == 8)
    os.kill(os.getpid(), signal.SIGKILL)


def history(run_id: str) -> list[int]:
    """Return the steps of the loss in MLflow."""
    return [metric.step for metric in MlflowClient().get_metric_history(run_id, "train/loss")]


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
