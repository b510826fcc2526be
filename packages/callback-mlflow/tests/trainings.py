"""A small training, and callbacks that watch it or break it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

from callback_core import TrainerCallback
from trainer_torch import Trainer, TrainingArguments


class Net(torch.nn.Module):
    """A layer, with a configuration that goes to the parameters."""

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        if config is not None:
            self.config = Configuration(config)


class Configuration:
    """The configuration of a model, as transformers' models have it."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def to_dict(self) -> dict[str, Any]:
        return self.values


class At(TrainerCallback):
    """Calls something when a step has ended."""

    def __init__(self, step: int, call: Any) -> None:
        self.step, self.call = step, call

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.call()


class Slow(TrainerCallback):
    """Lets each step take a while."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(self.seconds)


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something holds, at most so long."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def compute_loss(model: Net, batch: list[torch.Tensor]) -> torch.Tensor:
    features, targets = batch
    return ((model.layer(features) - targets) ** 2).mean()


def trainer(
    output_dir: Path, *callbacks: Any, config: dict[str, Any] | None = None, **changed: Any
) -> Trainer:
    """Return a trainer of 12 steps in 3 epochs that logs each step and evaluates each epoch."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(16, 2), torch.randn(16, 1))
    arguments = {
        "output_dir": str(output_dir),
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
        Net(config),
        TrainingArguments(**arguments),
        train_dataset=data,
        eval_dataset=data,
        compute_loss=compute_loss,
        callbacks=callbacks,
    )


def expected(trained: Trainer) -> dict[tuple[str, int], float]:
    """Return what MLflow is to have of a training: values by metric and step."""
    points: dict[tuple[str, int], float] = {}
    for entry in trained.state.log_history:
        for name, value in entry.items():
            if name == "step":
                continue
            split = next((s for s in ("eval", "test") if name.startswith(f"{s}_")), "train")
            shown = f"{split}/{name.removeprefix(f'{split}_') if split != 'train' else name}"
            points[shown, entry["step"]] = value
    return points
