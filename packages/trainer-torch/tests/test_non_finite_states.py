"""What is not finite without a step being so: buffers, the optimizer's state, evaluations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP
from small import trainer, warned
from torch import nn

from trainer_torch import Trainer
from trainer_torch.testing import At

NAN = float("nan")


class Normed(nn.Module):
    """A layer with running statistics: features (batch, 4) to scores (batch, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.scores = nn.Linear(4, 3)

    def forward(self, features: torch.Tensor) -> Any:
        return self.scores(self.norm(features))


def spoils_statistics(output_dir: Path, step: int, **changed: Any) -> Trainer:
    """Return a trainer whose model gets a running mean of NaN at the end of `step`."""
    model = Normed()
    statistics = dict(model.named_buffers())
    callback = At(step, lambda: statistics["norm.running_mean"].fill_(NAN))
    return trainer(output_dir, callback, given={"model": model}, **changed)


def test_the_best_checkpoint_may_have_an_optimizer_that_is_not_finite(tmp_path: Path) -> None:
    def spoil() -> None:
        for state in made.optimizer.state.values():
            state["exp_avg_sq"].fill_(torch.inf)  # its updates are 0

    made = trainer(
        tmp_path,
        At(2, spoil),
        **EVERY_STEP,
        max_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="step",
        greater_is_better=True,
        given={"compute_metrics": lambda _: {"step": made.state.global_step}},
    )
    made.train()
    assert made.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")


def test_the_first_checkpoint_that_is_not_finite_is_told_with_what_in_it_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoils_statistics(tmp_path, 3, **EVERY_STEP, max_steps=5).train()
    (told,) = warned(caplog)
    assert "checkpoint-3" in told
    assert "norm.running_mean" in told


def test_an_optimizer_that_is_not_finite_is_told_when_it_is_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil() -> None:
        made.optimizer.state[made.model.layers[3].bias]["exp_avg_sq"].fill_(torch.inf)

    made = trainer(tmp_path, At(2, spoil), **EVERY_STEP, max_steps=3)
    made.train()
    (told,) = warned(caplog)
    assert "checkpoint-2" in told
    assert "optimizer" in told
    assert "layers.3.bias" in told


def test_the_first_evaluation_whose_loss_is_not_finite_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed = {"eval_strategy": "steps", "eval_steps": 1, "max_steps": 4}
    spoils_statistics(tmp_path, 2, **changed).train()
    (told,) = warned(caplog)
    assert "eval_loss" in told
    assert "step 2" in told
