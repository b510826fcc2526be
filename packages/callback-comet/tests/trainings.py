"""A small training, and a callback that breaks into it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

from callback_core import TrainerCallback
from trainer_torch import Trainer, TrainingArguments


class Config:
    """The configuration of a model."""

    def to_dict(self) -> dict[str, Any]:
        return {"hidden_size": 8, "rope": {"theta": 0.5}}


class Net(torch.nn.Module):
    """A layer, with a configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.config = Config()


class Trial(TrainerCallback):
    """Makes the training the trial of a search, for the callbacks that come after it."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.is_hyper_param_search, state.trial_name = True, "trial-7"
        state.trial_params = {"learning_rate": 0.05}


class At(TrainerCallback):
    """Calls something when a step has ended."""

    def __init__(self, step: int, call: Callable[[], Any]) -> None:
        self.step, self.call = step, call

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.call()


def stop_with(error: BaseException) -> None:
    """Raise `error`."""
    raise error


def compute_loss(model: Any, batch: Any) -> torch.Tensor:
    features, targets = batch
    loss: torch.Tensor = ((model.layer(features) - targets) ** 2).mean()
    return loss


def trainer(output_dir: Path, *callbacks: Any, **changed: Any) -> Trainer:
    """Return a trainer of 6 steps in 3 epochs that logs each step and evaluates each epoch."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(8, 2), torch.randn(8, 1))
    arguments = {
        "output_dir": str(output_dir),
        "run_name": "a run",
        "per_device_train_batch_size": 4,
        "num_train_epochs": 3,
        "learning_rate": 0.05,
        "logging_steps": 1,
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **changed,
    }
    return Trainer(
        Net(),
        TrainingArguments(**arguments),
        train_dataset=data,
        eval_dataset=data,
        compute_loss=compute_loss,
        callbacks=callbacks,
    )


def expected(trained: Trainer) -> dict[tuple[str, int], float]:
    """Return what Comet is to have of a training: values by metric and step."""
    points: dict[tuple[str, int], float] = {}
    for entry in trained.state.log_history:
        for name, value in entry.items():
            if name.startswith("eval_"):
                points["eval/" + name[5:], entry["step"]] = value
            elif name != "step":
                points["train/" + name, entry["step"]] = value
    return points


def python(*arguments: str, timeout: float = 100, **more: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, in which it finds what it finds here."""
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, **more},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def replay(output_dir: Path) -> subprocess.CompletedProcess[str]:
    """Run the command that delivers what is left."""
    return python("-m", "callback_core.tracking.replay", str(output_dir))
