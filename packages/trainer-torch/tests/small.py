"""A small model, small data, and a fast trainer of both."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from trainer_torch import Trainer, TrainingArguments


class Net(nn.Module):
    """Two layers with dropout between them: features (batch, 4) to scores (batch, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.25), nn.Linear(8, 3))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)


def data(samples: int = 20) -> TensorDataset:
    """Return the same random features and labels at every call."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(3, (samples,), generator=generator)
    return TensorDataset(torch.randn(samples, 4, generator=generator), labels)


def net() -> Net:
    """Return a network with the same weights at every call."""
    torch.manual_seed(1)
    return Net()


def compute_loss(model: nn.Module, batch: list[Tensor]) -> tuple[Tensor, Tensor]:
    features, labels = batch
    scores = model(features)
    return nn.functional.cross_entropy(scores, labels), scores


def arguments(output_dir: Path | str, **changed: Any) -> TrainingArguments:
    """Return arguments for 2 epochs of 5 batches, without trackers."""
    return TrainingArguments(
        **{
            "output_dir": str(output_dir),
            "per_device_train_batch_size": 4,
            "num_train_epochs": 2,
            "learning_rate": 0.05,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            **changed,
        }
    )


def trainer(
    output_dir: Path | str, *callbacks: Any, given: dict[str, Any] | None = None, **changed: Any
) -> Trainer:
    """Return a trainer of `net` on `data`.

    Args:
        output_dir: The output directory.
        callbacks: The callbacks.
        given: Arguments of the Trainer instead of the usual ones.
        changed: Training arguments instead of the usual ones.
    """
    usual = {
        "train_dataset": data(),
        "eval_dataset": data(9),
        "compute_loss": compute_loss,
        "callbacks": callbacks,
    }
    given = {"model": net(), **usual, **(given or {})}
    return Trainer(args=arguments(output_dir, **changed), **given)


def logged(trained: Trainer, name: str) -> list[float]:
    """Return what was logged under `name`, in order."""
    return [entry[name] for entry in trained.state.log_history if name in entry]


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings and errors that were logged."""
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
