"""Errors in the input are raised before training starts, and name the part that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import Net, data, net, trainer
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

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
    with pytest.raises(ValueError, match=r"Silent .*compute_loss"):
        trainer(tmp_path, Started, given={"model": Silent(), "compute_loss": None}).train()


class Returns(nn.Module):
    """Returns what a function makes of its scores."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(4, 3), function

    def forward(self, features: Any, labels: Any) -> Any:
        return self.function(self.layer(features))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda scores: (scores, 1), r"Returns .*\['loss'\]"),
        (lambda scores: scores.sum().detach(), "Returns .*no_grad"),
        (lambda scores: scores.sum(), "compute_metrics .*predictions"),
    ],
    ids=["not one number", "detached", "no predictions"],
)
def test_a_model_whose_output_cannot_be_used(tmp_path: Path, function: Any, message: str) -> None:
    given = {"model": Returns(function), "compute_loss": None, "compute_metrics": lambda _: {}}
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, Started, given=given).train()


def test_an_empty_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_dataset"):
        trainer(tmp_path, Started, given={"train_dataset": data(0)}).train()


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train_dataset"):
        trainer(tmp_path, Started, given={"train_dataset": None}).train()


@pytest.mark.parametrize("wanted", [{"eval_strategy": "epoch"}, {"eval_on_start": True}])
@pytest.mark.parametrize("dataset", [None, {}, data(0), {"a": data(3), "b": data(0)}])
def test_evaluation_without_data(tmp_path: Path, wanted: dict[str, Any], dataset: Any) -> None:
    with pytest.raises(ValueError, match=r"eval_strategy .*eval_on_start .*eval_dataset"):
        trainer(tmp_path, Started, given={"eval_dataset": dataset}, **wanted)


def test_a_metric_of_several_datasets_that_names_none_of_them(tmp_path: Path) -> None:
    given = {"eval_dataset": {"near": data(3), "far": data(3)}}
    with pytest.raises(ValueError, match="near_loss, far_loss"):
        trainer(tmp_path, Started, given=given, eval_strategy="epoch", metric_for_best_model="loss")


def test_a_schedule_of_another_optimizer(tmp_path: Path) -> None:
    model = net()
    schedule = StepLR(SGD(model.parameters(), lr=0.1), 1)
    for optimizer in (None, SGD(model.parameters(), lr=0.1)):
        with pytest.raises(ValueError, match="optimizers"):
            trainer(tmp_path, Started, given={"model": model, "optimizers": (optimizer, schedule)})


def test_an_output_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match=r"output_dir .*taken"):
        trainer(tmp_path / "taken", Started, save_strategy="epoch").train()


def test_a_model_whose_state_cannot_be_saved(tmp_path: Path) -> None:
    class Extra(Net):
        def get_extra_state(self) -> Any:
            return "text"

    with pytest.raises(ValueError, match="'_extra_state'"):
        trainer(tmp_path, Started, given={"model": Extra()}, save_strategy="epoch").train()


def test_shares_of_all_steps_that_leave_a_checkpoint_unevaluated(tmp_path: Path) -> None:
    steps = {"max_steps": 11, "eval_steps": 0.3, "save_steps": 0.6}
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    with pytest.raises(ValueError, match=r"save_steps\D+7\D+eval_steps\D+4"):
        trainer(tmp_path, Started, **best, **steps).train()


def test_saving_before_there_is_a_training(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="save_model"):
        trainer(tmp_path, Started).save_checkpoint()


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="checkpoint-7"):
        trainer(tmp_path, Started).train(resume_from_checkpoint=tmp_path / "checkpoint-7")
    with pytest.raises(FileNotFoundError, match=tmp_path.name):
        trainer(tmp_path, Started).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("wrong", [dict, object(), "tensorboard"])
def test_a_callback_that_is_none(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"callback"):
        trainer(tmp_path, wrong)


def test_a_tracker_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ledger"):
        trainer(tmp_path, Started, report_to="ledger")


def test_a_frozen_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="parameter"):
        trainer(tmp_path, Started, given={"model": net().requires_grad_(False)}).train()


def test_a_plateau_schedule_without_a_metric(tmp_path: Path) -> None:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    given = {"model": model, "optimizers": (optimizer, ReduceLROnPlateau(optimizer))}
    with pytest.raises(ValueError, match="metric_for_best_model"):
        trainer(tmp_path, Started, given=given).train()


class LeavesTraces(nn.Module):
    """Changes running statistics and a moving average of its weights, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer, self.drop = nn.BatchNorm1d(4), nn.Linear(4, 3), nn.Dropout(0.5)
        self.average = nn.Parameter(torch.zeros(3, 4), requires_grad=False)

    def forward(self, features: Any, labels: Any) -> Any:
        with torch.no_grad():
            self.average.lerp_(self.layer.weight, 0.5)
        return nn.functional.cross_entropy(self.drop(self.layer(self.norm(features))), labels)


def test_looking_at_the_model_beforehand_leaves_its_tensors_and_the_generators_alone(
    tmp_path: Path,
) -> None:
    class Looks(TrainerCallback):
        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            assert torch.equal(model.norm.running_mean, torch.zeros(4))
            assert torch.equal(model.average, torch.zeros(3, 4))
            assert all(parameter.grad is None for parameter in model.parameters())
            states.append(torch.get_rng_state())

    states: list[Any] = []
    given = {"model": LeavesTraces(), "compute_loss": None}
    trainer(tmp_path, Looks, given=given).train()
    torch.manual_seed(42)
    assert torch.equal(states[0], torch.get_rng_state())
