"""A small training, in transformers' trainer and in ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import Dataset

import trainer_torch

TRAINERS = {"transformers": transformers, "ours": trainer_torch}


class TinyModel(nn.Module):
    """A regression on two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.linear(x)
        return {"loss": nn.functional.mse_loss(logits, labels), "logits": logits}


class TinyDataset(Dataset[dict[str, Tensor]]):
    """A fixed number of samples, always the same."""

    def __init__(self, samples: int) -> None:
        self.x = torch.linspace(-1, 1, 2 * samples).reshape(samples, 2)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.x[index].sum().reshape(1)}


def build(
    trainer: str, output_dir: Path, *callbacks: Any, scores: tuple[float, ...] = (), **changed: Any
) -> Any:
    """Return a trainer with 2 epochs of 5 steps.

    Args:
        trainer: A key of `TRAINERS`.
        output_dir: The directory that it writes to.
        callbacks: Callbacks besides its default ones.
        scores: The values of `eval_score` in successive evaluations.
        changed: Training arguments that replace or extend the defaults.
    """
    torch.manual_seed(0)
    chosen = TRAINERS[trainer]
    values = iter(scores)
    args = chosen.TrainingArguments(
        **{
            "output_dir": str(output_dir),
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "num_train_epochs": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "use_cpu": True,
            "disable_tqdm": True,
            "report_to": "none",
            **({"remove_unused_columns": False} if chosen is transformers else {}),
            **changed,
        }
    )
    return chosen.Trainer(
        model=TinyModel(),
        args=args,
        train_dataset=TinyDataset(10),
        eval_dataset=TinyDataset(4),
        compute_metrics=(lambda _: {"score": next(values)}) if scores else None,
        callbacks=list(callbacks),
    )
