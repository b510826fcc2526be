"""Resuming is exact also if callbacks change the model, its optimizer or the generators."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import THREE_EPOCHS, Unfreezes, assert_exact, backbone_frozen, weights
from small import logged, net, trainer
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR, StepLR

from callback_core import TrainerCallback
from trainer_torch import Trainer


class UnfreezesOnce(Unfreezes):
    """Does so at the first epoch from the second one on."""

    done = False

    def on_epoch_begin(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
        if state.epoch >= 1 and not self.done:
            self.done = True
            state.epoch, epoch = 1, state.epoch
            super().on_epoch_begin(args, state, *rest, **kwargs)
            state.epoch = epoch


@pytest.mark.parametrize("callback", [Unfreezes, UnfreezesOnce])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_a_group_that_a_callback_adds_in_the_second_epoch(
    tmp_path: Path, callback: Any, schedule: str
) -> None:
    def make(output_dir: Path) -> Trainer:
        given = {"model": backbone_frozen()}
        return trainer(
            output_dir, callback, given=given, lr_scheduler_type=schedule, **THREE_EPOCHS
        )

    assert_exact(tmp_path, make, 3, 5, 7, 10, 12)


def test_a_group_that_a_callback_adds_to_a_given_optimizer(tmp_path: Path) -> None:
    def make(output_dir: Path) -> Trainer:
        model = backbone_frozen()
        optimizer = SGD(model.layers[3].parameters(), lr=0.1, momentum=0.9)
        given = {"model": model, "optimizers": (optimizer, StepLR(optimizer, 4))}
        return trainer(output_dir, Unfreezes, given=given, **THREE_EPOCHS)

    assert_exact(tmp_path, make, 5, 7, 12)


class Begins(TrainerCallback):
    """Calls a function of the model and the optimizer when a training begins."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        self.call(model, optimizer)


def add_first_layer(model: Any, optimizer: Any) -> None:
    model.layers[0].requires_grad_(True)
    optimizer.add_param_group({"params": list(model.layers[0].parameters()), "lr": 0.02})


def initialize(model: Any, optimizer: Any) -> None:
    with torch.no_grad():
        model.layers[3].bias.fill_(0.5)


def divide_rates(model: Any, optimizer: Any) -> None:
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"] = group["lr"] / 10


def add_layer(model: Any, optimizer: Any) -> None:
    model.layers.append(nn.Linear(3, 3))
    optimizer.add_param_group({"params": model.layers[-1].parameters()})


@pytest.mark.parametrize("call", [add_first_layer, initialize, divide_rates, add_layer])
def test_what_a_callback_does_when_a_training_begins_is_not_done_twice(
    tmp_path: Path, call: Any
) -> None:
    def make(output_dir: Path) -> Trainer:
        return trainer(output_dir, Begins(call), given={"model": backbone_frozen()}, **THREE_EPOCHS)

    assert_exact(tmp_path, make, 3, 5)


class Removes(TrainerCallback):
    """Removes the last parameter group in the second epoch."""

    def on_epoch_begin(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        if int(state.epoch) == 1:
            for parameter in optimizer.param_groups.pop()["params"]:
                optimizer.state.pop(parameter, None)


def test_a_group_that_a_callback_removes(tmp_path: Path) -> None:
    def make(output_dir: Path) -> Trainer:
        return trainer(output_dir, Removes, **THREE_EPOCHS)

    assert_exact(tmp_path, make, 3, 7, 12)


class Grows(TrainerCallback):
    """Adds a layer in the second epoch, and when a training is resumed after that."""

    has_grown = False

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        if self.has_grown:
            model.layers.append(nn.Linear(3, 3))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.epoch == 1 and not self.has_grown:
            self.has_grown = True
            layer = nn.Linear(3, 3)
            parts["model"].layers.append(layer)
            parts["optimizer"].add_param_group({"params": layer.parameters()})

    def state_dict(self) -> dict[str, Any]:
        return {"has_grown": self.has_grown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.has_grown = state["has_grown"]


def test_a_layer_that_a_callback_adds_in_the_second_epoch(tmp_path: Path) -> None:
    def make(output_dir: Path) -> Trainer:
        return trainer(output_dir, Grows(), **THREE_EPOCHS)

    assert_exact(tmp_path, make, 3, 5, 7, 10, 12)


class AtEpoch(TrainerCallback):
    """Calls a function of the model when an epoch begins."""

    def __init__(self, epoch: int, call: Any) -> None:
        self.epoch, self.call = epoch, call

    def on_epoch_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        if state.epoch == self.epoch:
            self.call(model)


def halve_weights(model: Any) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.layers[2].eval(),
        lambda model: model.layers[0].requires_grad_(False),
        halve_weights,
        lambda model: torch.rand(3),
        lambda model: random.random(),
    ],
    ids=["evaluation mode", "freezing", "pruning", "drawing", "drawing in Python"],
)
def test_what_a_callback_does_when_an_epoch_begins(tmp_path: Path, call: Any) -> None:
    def make(output_dir: Path) -> Trainer:
        return trainer(output_dir, AtEpoch(1, call), **THREE_EPOCHS)

    assert_exact(tmp_path, make, 3, 5, 7, 10, 12)


def test_optimizers_of_another_class_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path, **THREE_EPOCHS).train()
    model = net()
    given = {"model": model, "optimizers": (SGD(model.parameters(), lr=0.1), None)}
    with pytest.raises(ValueError, match=r"AdamW.*SGD"):
        trainer(tmp_path, given=given).train(resume_from_checkpoint=True)
    model = net()
    optimizer = AdamW(model.parameters())
    given = {"model": model, "optimizers": (optimizer, StepLR(optimizer, 1))}
    with pytest.raises(ValueError, match=r"StepLR"):
        trainer(tmp_path, given=given).train(resume_from_checkpoint=True)


def test_a_group_of_parameters_that_the_model_does_not_have_is_an_error_that_says_so(
    tmp_path: Path,
) -> None:
    def add_others(model: Any, optimizer: Any) -> None:
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})

    trainer(tmp_path, Begins(add_others), max_steps=2, **THREE_EPOCHS).train()
    with pytest.raises(ValueError, match="on_train_begin"):
        trainer(tmp_path, **THREE_EPOCHS).train(resume_from_checkpoint=True)
    trainer(tmp_path, Begins(add_others), **THREE_EPOCHS).train(resume_from_checkpoint=True)


def test_the_parameters_of_a_group_are_found_by_name_and_not_by_their_order(tmp_path: Path) -> None:
    def make(output_dir: Path, is_reversed: bool = False) -> Trainer:
        model = net()
        parameters = list(model.parameters())
        optimizer = Adam(parameters[::-1] if is_reversed else parameters, lr=0.01)
        return trainer(output_dir, given={"model": model, "optimizers": (optimizer, None)})

    whole = make(tmp_path)
    whole.args.save_strategy, whole.args.save_steps = "steps", 3
    whole.train()
    resumed = make(tmp_path / "resumed", is_reversed=True)
    resumed.train(tmp_path / "checkpoint-3")
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        assert torch.equal(one, other)


class Again(TrainerCallback):
    """Notes the learning rates of the steps."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any
    ) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("with_schedule", [True, False])
def test_a_second_training_starts_given_optimizers_afresh(
    tmp_path: Path, with_schedule: bool
) -> None:
    model, noted = net(), Again()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = LambdaLR(optimizer, lambda step: 0.5**step) if with_schedule else None
    given = {"model": model, "optimizers": (optimizer, schedule)}
    trained = trainer(tmp_path, noted, given=given, max_steps=4)
    trained.train()
    first, noted.rates = noted.rates, []
    assert first[0] == 0.1
    before = {name: value.clone() for name, value in net().state_dict().items()}
    model.load_state_dict(before)
    trained.train()
    assert noted.rates == first


def test_a_second_training_is_the_same_training_if_the_weights_are(tmp_path: Path) -> None:
    model = backbone_frozen()
    optimizer = SGD(model.layers[3].parameters(), lr=0.1, momentum=0.9)
    given = {"model": model, "optimizers": (optimizer, StepLR(optimizer, 4))}
    trained = trainer(tmp_path, Unfreezes, given=given, num_train_epochs=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained.train()
    losses = logged(trained, "loss")
    model.load_state_dict(before)
    model.layers[0].requires_grad_(False)
    trained.train()
    assert logged(trained, "loss") == losses


def test_an_optimizer_that_the_user_changes_between_two_trainings_is_taken_as_it_is(
    tmp_path: Path,
) -> None:
    model, noted = backbone_frozen(), Again()
    optimizer = SGD(model.layers[3].parameters(), lr=0.1)
    given = {"model": model, "optimizers": (optimizer, None)}
    trained = trainer(tmp_path, noted, given=given, max_steps=2, lr_scheduler_type="constant")
    trained.train()
    model.requires_grad_(True)
    optimizer.add_param_group({"params": model.layers[0].parameters(), "lr": 0.02})
    before = model.layers[0].weight.detach().clone()
    trained.train()
    assert len(optimizer.param_groups) == 2
    assert not torch.equal(model.layers[0].weight, before)


class Steps:
    """A schedule that has nothing but what the loop calls."""

    def step(self) -> None:
        """Change nothing."""


def test_a_schedule_without_a_state_trains_if_nothing_is_saved(tmp_path: Path) -> None:
    model = net()
    given = {"model": model, "optimizers": (SGD(model.parameters(), lr=0.1), Steps())}
    trained = trainer(tmp_path, given=given, max_steps=2)
    trained.train()
    assert trained.train().global_step == 2


def test_a_schedule_that_another_trainer_has_used_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    given = {"model": model, "optimizers": (optimizer, StepLR(optimizer, 1))}
    trainer(tmp_path, given=given, max_steps=3).train()
    assert not caplog.records
    trainer(tmp_path, given=given, max_steps=3).train()
    assert [record.args for record in caplog.records] == [(3,)]
