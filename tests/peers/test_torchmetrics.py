"""Metrics of torchmetrics as `compute_metrics`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from trainer_torch import Trainer, TrainingArguments

SAMPLES = 23


class Scores(nn.Module):
    """Scores of three classes, with a loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.layer(x)
        return cross_entropy(scores, labels), scores.softmax(-1)


class Rows(torch.utils.data.Dataset[Any]):
    """The same random samples each time."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(SAMPLES, 4, generator=generator)
        self.labels = torch.randint(3, (SAMPLES,), generator=generator)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}


def test_metrics_of_torchmetrics_are_those_of_all_samples_in_each_evaluation(
    tmp_path: Path,
) -> None:
    metrics = MetricCollection([MulticlassAccuracy(3, average="micro"), MulticlassAUROC(3)])
    args = TrainingArguments(
        output_dir=str(tmp_path), per_device_eval_batch_size=5, report_to="none", use_cpu=True
    )
    model, rows = Scores(), Rows()
    trainer = Trainer(model, args, eval_dataset=rows, compute_metrics=metrics)
    evaluations = [trainer.evaluate(), trainer.evaluate()]
    with torch.no_grad():
        expected = metrics.clone()(model(rows.x, rows.labels)[1], rows.labels)
    for evaluated in evaluations:
        for name, value in expected.items():
            assert evaluated[f"eval_{name}"] == pytest.approx(value.item(), rel=1e-6)
