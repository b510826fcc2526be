"""The best checkpoint is found, also if a subclass evaluates in its own way."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import arguments, compute_loss, data, logged, net

from trainer_torch import Trainer

BEST = {
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "score",
    "max_steps": 4,
}


class Evaluates(Trainer):
    """Returns the next of its scores, and logs nothing."""

    scores: Any

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        return {"eval_score": next(self.scores)}


class EvaluatesNothing(Trainer):
    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        return None


def made(kind: type[Trainer], out: Path, **changed: Any) -> Any:
    args = arguments(out, **{**BEST, **changed})
    return kind(net(), args, None, data(), data(9), compute_loss=compute_loss)


@pytest.mark.parametrize("kind", [float, np.float32, torch.tensor], ids=["float", "numpy", "torch"])
def test_metrics_that_a_subclass_returns_without_logging_them_decide(
    tmp_path: Path, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trained = made(Evaluates, tmp_path, save_total_limit=1)
    trained.scores = iter([kind(value) for value in (0.1, 0.75, 0.2, 0.3)])
    trained.train()
    assert trained.state.best_metric == 0.75
    assert trained.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_resumed_training_knows_what_a_subclass_has_not_logged(tmp_path: Path) -> None:
    first = made(Evaluates, tmp_path, max_steps=2)
    first.scores = iter([0.9, 0.5])
    first.train()
    second = made(Evaluates, tmp_path)
    second.scores = iter([0.6, 0.7])
    second.train(resume_from_checkpoint=True)
    assert second.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")


def test_a_metric_that_is_logged_is_in_the_history_once(tmp_path: Path) -> None:
    trained = made(Trainer, tmp_path, metric_for_best_model="loss")
    trained.train()
    assert len(logged(trained, "eval_loss")) == 4


def test_an_evaluation_that_returns_nothing_is_an_error_that_names_the_metric(
    tmp_path: Path,
) -> None:
    with pytest.raises(TypeError, match=r"evaluate.*None.*eval_score"):
        made(EvaluatesNothing, tmp_path).train()


@pytest.mark.parametrize("score", ["9.5", None], ids=["text", "None"])
def test_a_deciding_metric_that_is_no_number_is_an_error_that_names_it(
    tmp_path: Path, score: Any
) -> None:
    """As texts, 9.5 would be greater than 10.5."""
    trained = made(Evaluates, tmp_path)
    trained.scores = iter([score])
    with pytest.raises(TypeError, match=f"eval_score.*{score}.*metric_for_best_model"):
        trained.train()
