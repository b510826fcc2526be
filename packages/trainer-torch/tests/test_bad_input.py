"""What is wrong is said before training starts, and says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import Net, data, net, trainer
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from callback_core import TrainerCallback


class Started(TrainerCallback):
    """Knows whether training has begun."""

    begun = False

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        Started.begun = True


@pytest.fixture(autouse=True)
def not_begun() -> Any:
    Started.begun = False
    yield
    assert not Started.begun


class Silent(nn.Module):
    """Returns no loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, features: Any, labels: Any) -> Any:
        return {"scores": self.layer(features)}


def test_a_model_that_returns_no_loss(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Silent returned no loss .* compute_loss function"):
        trainer(tmp_path, Started, given={"model": Silent(), "compute_loss": None}).train()


def test_a_loss_that_is_not_reduced_to_one_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"returned no loss .* one number"):
        trainer(
            tmp_path, Started, given={"compute_loss": lambda model, batch: (model(batch[0]), 1)}
        ).train()


def test_a_loss_without_a_gradient(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The loss has no gradient"):
        trainer(
            tmp_path,
            Started,
            given={"compute_loss": lambda model, batch: model(batch[0]).sum().detach()},
        ).train()


def test_metrics_without_predictions(tmp_path: Path) -> None:
    given = {
        "compute_loss": lambda model, batch: model(batch[0]).sum(),
        "compute_metrics": lambda evaluated: {},
    }
    with pytest.raises(ValueError, match="compute_metrics needs predictions"):
        trainer(tmp_path, Started, given=given).train()


def test_an_empty_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_dataset is empty"):
        trainer(tmp_path, Started, given={"train_dataset": data(0)}).train()


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the Trainer a train_dataset"):
        trainer(tmp_path, Started, given={"train_dataset": None}).train()


def test_evaluation_without_a_dataset(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="eval_strategy is 'epoch' but there is nothing to evaluate on"
    ):
        trainer(tmp_path, Started, given={"eval_dataset": None}, eval_strategy="epoch")


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="checkpoint-7: there is no such directory"):
        trainer(tmp_path, Started).train(resume_from_checkpoint=tmp_path / "checkpoint-7")
    with pytest.raises(FileNotFoundError, match="there is no complete checkpoint in"):
        trainer(tmp_path, Started).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("wrong", [dict, object(), "tensorboard"])
def test_a_callback_that_is_none(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(TypeError, match="is not a callback"):
        trainer(tmp_path, wrong)


def test_a_tracker_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pip install callback-ledger"):
        trainer(tmp_path, Started, report_to="ledger")


def test_a_frozen_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to train"):
        trainer(tmp_path, Started, given={"model": net().requires_grad_(False)}).train()


def test_a_plateau_schedule_without_a_metric(tmp_path: Path) -> None:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    given = {"model": model, "optimizers": (optimizer, ReduceLROnPlateau(optimizer))}
    with pytest.raises(ValueError, match="set metric_for_best_model"):
        trainer(tmp_path, Started, given=given).train()


def test_one_of_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="WORLD_SIZE is 2"):
        trainer(tmp_path, Started)


def test_looking_at_the_model_beforehand_leaves_no_trace(tmp_path: Path) -> None:
    class Counting(Net):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, features: Any) -> Any:
            return self.layers(self.norm(features))

    class Looks(TrainerCallback):
        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            assert torch.equal(model.norm.running_mean, torch.zeros(4))
            assert all(parameter.grad is None for parameter in model.parameters())
            states.append(torch.get_rng_state())

    states: list[Any] = []
    trainer(tmp_path, Looks, given={"model": Counting()}).train()
    torch.manual_seed(42)
    assert torch.equal(states[0], torch.get_rng_state())
