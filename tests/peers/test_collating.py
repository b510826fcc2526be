"""The default collator makes the batches of transformers' default collator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

import trainer_torch

TRAINERS = {"transformers": transformers, "ours": trainer_torch}


class Scores(nn.Module):
    """Scores of three classes of two numbers, with a loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(2, 3)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.layer(x)
        return nn.functional.cross_entropy(scores, labels), scores


class Anything(nn.Module):
    """Takes what the samples below have."""

    def forward(self, x: Any = None, y: Any = None, z: Any = None, labels: Any = None) -> None:
        """Never called."""


def batch_of(kind: str, samples: list[Any], tmp_path: Path) -> dict[str, Tensor]:
    """Return the batch that a Trainer makes of the samples, without a collator of the user's."""
    chosen: Any = TRAINERS[kind]
    args = chosen.TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    trainer = chosen.Trainer(Anything(), args, eval_dataset=samples)
    return dict(next(iter(trainer.get_eval_dataloader())))


@pytest.mark.parametrize(
    "sample",
    [
        {"x": [0.5, 1.5], "label": 1},
        {"x": [1, 2], "label": 0.5},
        {"x": [[1.0, 2.0], [3.0, 4.0]], "label_ids": [1, 2]},
        {"x": torch.ones(2), "label": torch.tensor(1)},
        {"x": np.ones(2, np.float32), "label": np.int64(1)},
        {"x": np.ones(2), "labels": 2},
        {"x": 3, "y": 0.25, "z": [True, False]},
        {"x": [[0.5], [1.5]], "labels": 0.25},
        {"x": torch.ones(2), "labels": [1, 0]},
    ],
    ids=str,
)
def test_a_batch_is_that_of_transformers(sample: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours = (batch_of(kind, [sample, sample], tmp_path) for kind in TRAINERS)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value)
        assert ours[name].dtype == value.dtype


@pytest.mark.parametrize("kind", TRAINERS)
def test_columns_that_forward_does_not_take_are_left_out(kind: str, tmp_path: Path) -> None:
    chosen: Any = TRAINERS[kind]
    data = [{"x": [float(i), 1.0], "label": i % 3, "length": 2} for i in range(12)]
    args = chosen.TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    trainer = chosen.Trainer(Scores(), args, train_dataset=data, eval_dataset=data)
    x = torch.tensor([row["x"] for row in data])
    labels = torch.tensor([row["label"] for row in data])
    expected = Scores()(x, labels)[0].item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert trainer.train().global_step == 6
