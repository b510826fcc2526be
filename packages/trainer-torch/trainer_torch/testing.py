"""A real training that takes a second, for testing callbacks."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from callback_core import TrainerCallback
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.trainer import Trainer

CONFIG = {"hidden_size": 8, "rope": {"theta": 10.5}}
"""The default configuration of `SmallNet`."""


class Config:
    """The configuration of a model, in the form of transformers' models."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return dict(self.values)


class SmallNet(nn.Module):
    """A linear layer with a configuration: features (batch, 2) to values (batch, 1)."""

    def __init__(self, config: Mapping[str, Any] = CONFIG) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.config = Config(config)

    def forward(self, features: Tensor) -> Tensor:
        """Return a value for each sample."""
        values: Tensor = self.layer(features)
        return values


class At(TrainerCallback):
    """Calls a function at the end of an update step.

    Args:
        step: The number of the step, from 1.
        call: The function. An error that it raises ends the training.
    """

    def __init__(self, step: int, call: Callable[[], Any]) -> None:
        self.step = step
        self.call = call

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Call the function, if this is the step."""
        if state.global_step == self.step:
            self.call()


def raising(error: BaseException) -> Callable[[], NoReturn]:
    """Return a function that raises `error`, for `At`."""

    def call() -> NoReturn:
        raise error

    return call


class Trial(TrainerCallback):
    """Presents the training to later callbacks as a trial of a hyperparameter search.

    Args:
        name: The name of the trial.
        parameters: The hyperparameters of the trial.
    """

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self.name = name
        self.parameters = dict(parameters)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the trial into the state."""
        state.is_hyper_param_search, state.trial_name = True, self.name
        state.trial_params = dict(self.parameters)


def pickled_copies(output_dir: Path, callback: Any) -> list[Any]:
    """Train with `callback`, and return three copies that pickle makes of it.

    They are made before the training, at its step 6 and after it.
    """
    copies: list[Any] = []

    def copy() -> None:
        copies.append(pickle.loads(pickle.dumps(callback)))

    copy()
    small_trainer(output_dir, callback, At(6, copy)).train()
    copy()
    return copies


def squared_error(model: nn.Module, batch: list[Tensor]) -> Tensor:
    """Return the mean squared error of a batch of features and targets, a scalar."""
    features, targets = batch
    loss: Tensor = ((model(features) - targets) ** 2).mean()
    return loss


def small_trainer(
    output_dir: Path | str, *callbacks: Any, config: Mapping[str, Any] = CONFIG, **changed: Any
) -> Trainer:
    """Return a trainer of 12 update steps in 3 epochs, the same at every call.

    It logs at each step and evaluates after each epoch. It saves nothing, and reports to
    `callbacks` only.

    Args:
        output_dir: The output directory.
        callbacks: The callbacks.
        config: The configuration of the model.
        changed: Training arguments to replace or add.
    """
    generator = torch.Generator().manual_seed(0)
    data = TensorDataset(
        torch.randn(16, 2, generator=generator), torch.randn(16, 1, generator=generator)
    )
    arguments = {
        "output_dir": str(output_dir),
        "run_name": "small",
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
    torch.manual_seed(0)
    return Trainer(
        SmallNet(config),
        TrainingArguments(**arguments),
        train_dataset=data,
        eval_dataset=data,
        compute_loss=squared_error,
        callbacks=callbacks,
    )


def logged_points(trained: Trainer) -> dict[tuple[str, int], float]:
    """Return what a tracker should have stored: values by name and step.

    The source is the log history of the state, not what callbacks received.
    """
    points: dict[tuple[str, int], float] = {}
    for entry in trained.state.log_history:
        for name, value in entry.items():
            if name != "step":
                points[_tracked_name(name), entry["step"]] = value
    return points


def comparable(points: Mapping[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """Return `points` without measured times, which differ in each training."""
    measured = ("runtime", "_per_second")
    return {key: value for key, value in points.items() if not key[0].endswith(measured)}


def _tracked_name(name: str) -> str:
    split, _, rest = name.partition("_")
    return f"{split}/{rest}" if split in ("eval", "test") and rest else f"train/{name}"


def draws_after_training(output_dir: Path, *callbacks: Any, **changed: Any) -> list[float]:
    """Train, and return what the generators of Python, numpy and torch draw next.

    A callback changes none of these numbers, unless it or its SDK has drawn from a generator.

    Args:
        output_dir: The output directory.
        callbacks: The callbacks.
        changed: Training arguments to replace or add.
    """
    small_trainer(output_dir, *callbacks, **changed).train()
    return [random.random(), np.random.rand(), torch.rand(1).item()]
