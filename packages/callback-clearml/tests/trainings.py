"""A small training, callbacks that watch it or break it, and what is to be stored of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

from callback_core import TrainerCallback
from trainer_torch import Trainer, TrainingArguments

SINGLE = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")


class Net(torch.nn.Module):
    """A layer, with a configuration that goes to the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.config = Configuration()


class Configuration:
    """The configuration of a model, as transformers' models have it."""

    def to_dict(self) -> dict[str, Any]:
        return {"hidden_size": 8, "rope": {"theta": 10.5}}


class At(TrainerCallback):
    """Calls something when a step has ended."""

    def __init__(self, step: int, call: Callable[[], Any]) -> None:
        self.step, self.call = step, call

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.call()


def compute_loss(model: Net, batch: list[torch.Tensor]) -> torch.Tensor:
    features, targets = batch
    return ((model.layer(features) - targets) ** 2).mean()


def trainer(output_dir: Path, *callbacks: Any, **changed: Any) -> Trainer:
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
        Net(),
        TrainingArguments(**arguments),
        train_dataset=data,
        eval_dataset=data,
        compute_loss=compute_loss,
        callbacks=callbacks,
    )


def curves(trained: Trainer) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Return what ClearML is to have of a training: points by plot and curve."""
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for entry in trained.state.log_history:
        for name, value in entry.items():
            if name in SINGLE:
                points["Summary", name] = [(-(2**31), value)]
            elif name != "step" and not (name == "epoch" and "train_runtime" in entry):
                split = next((s for s in ("eval", "test") if name.startswith(f"{s}_")), "train")
                curve = points.setdefault((split, name.removeprefix(f"{split}_")), [])
                point = (entry["step"], value)
                if point not in curve:  # the epoch is in each log
                    curve.append(point)
    return points


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which Python finds what it finds here."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}


def python(code: str, *arguments: Any, timeout: float = 180, **variables: str) -> Any:
    """Run code in a Python of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def replay(output_dir: Path) -> Any:
    """Run the command that delivers what is left."""
    code = (
        "import sys; from callback_core.tracking.replay import main; sys.exit(main(sys.argv[1:]))"
    )
    return python(code, output_dir)


def wait_until(holds: Callable[[], bool], seconds: float = 90.0) -> None:
    """Wait until something holds, at most so long."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)
