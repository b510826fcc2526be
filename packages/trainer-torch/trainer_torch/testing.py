"""A real training of a second, to try callbacks in: `small_trainer`, and what breaks into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from callback_core import TrainerCallback
from trainer_torch.arguments import TrainingArguments
from trainer_torch.trainer import Trainer

CONFIG = {"hidden_size": 8, "rope": {"theta": 10.5}}
"""The configuration of a `SmallNet` that is not given another one."""


class Config:
    """The configuration of a model, as transformers' models have it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
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
    """Calls something when an update step has ended.

    Args:
        step: The number of the step.
        call: What to call; an error that it raises ends the training.
    """

    def __init__(self, step: int, call: Callable[[], Any]) -> None:
        self.step = step
        self.call = call

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Call it, if this is the step."""
        if state.global_step == self.step:
            self.call()


class Trial(TrainerCallback):
    """Makes a training the trial of a search, for the callbacks that come after it.

    Args:
        name: The trial's name.
        parameters: Its hyperparameters.
    """

    def __init__(self, name: str, parameters: Mapping[str, Any]) -> None:
        self.name = name
        self.parameters = dict(parameters)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say so in the state."""
        state.is_hyper_param_search, state.trial_name = True, self.name
        state.trial_params = dict(self.parameters)


def squared_error(model: nn.Module, batch: list[Tensor]) -> Tensor:
    """Return the mean squared error of a batch of features and targets, a scalar."""
    features, targets = batch
    loss: Tensor = ((model(features) - targets) ** 2).mean()
    return loss


def small_trainer(
    output_dir: Path, *callbacks: Any, config: Mapping[str, Any] = CONFIG, **changed: Any
) -> Trainer:
    """Return a trainer of 12 update steps in 3 epochs, the same at every call.

    It logs at each step and evaluates after each epoch, saves nothing, and reports to no one but
    `callbacks`.

    Args:
        output_dir: Where it writes to.
        callbacks: Its callbacks.
        config: The model's configuration.
        changed: Training arguments that are to be others.
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
    """Return what a tracker is to have of a training: values by its names and the steps.

    It is taken from the state's history, and not from what callbacks were told.
    """
    points: dict[tuple[str, int], float] = {}
    for entry in trained.state.log_history:
        for name, value in entry.items():
            if name != "step":
                points[_tracked_name(name), entry["step"]] = value
    return points


def _tracked_name(name: str) -> str:
    split, _, rest = name.partition("_")
    return f"{split}/{rest}" if split in ("eval", "test") and rest else f"train/{name}"
