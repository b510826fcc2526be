"""Activation checkpointing: less memory, and otherwise the same model."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Net, trainer
from torch import Tensor, nn

from callback_core import TrainerCallback
from trainer_torch import TrainingArguments


class Block(nn.Module):
    """A layer with a norm and dropout, which counts how often it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.3)
        self.calls = 0

    def forward(self, features: Tensor, scale: float = 1.0) -> Tensor:
        self.calls += 1
        return features + self.dropout(self.norm(self.layer(features)).relu()) * scale


class Deep(nn.Module):
    """Four blocks between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.short = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = nn.Linear(4, 3)

    def forward(self, features: Tensor) -> Tensor:
        features = self.stem(features)
        for block in self.blocks:
            features = block(features, scale=0.5)
        for layer in self.short:
            features = layer(features)
        return self.head(features)


def deep() -> Deep:
    torch.manual_seed(1)
    return Deep()


def trained(directory: Path, model: nn.Module, *callbacks: Any, **changed: Any) -> Any:
    made = trainer(directory, *callbacks, given={"model": model}, **changed)
    made.train()
    return made.model


class Gradients(TrainerCallback):
    def __init__(self) -> None:
        self.of_steps: list[list[Tensor]] = []

    def on_pre_optimizer_step(self, *given: Any, model: Any, **parts: Any) -> None:
        self.of_steps.append([one.grad.clone() for one in model.parameters()])


@pytest.mark.parametrize(
    "options",
    [
        None,
        {"use_reentrant": False, "every_n_layers": 2},
        {"use_reentrant": True},
        {"offload": True},
        '{"modules": ["Block"]}',
    ],
    ids=str,
)
def test_gradients_and_statistics_are_the_same_with_dropout(tmp_path: Path, options: Any) -> None:
    plain, checkpointed = Gradients(), Gradients()
    first = trained(tmp_path, deep(), plain)
    second = trained(
        tmp_path,
        deep(),
        checkpointed,
        activation_checkpointing=True,
        activation_checkpointing_kwargs=options,
    )
    for pair in zip(plain.of_steps, checkpointed.of_steps, strict=True):
        assert all(torch.allclose(*both, atol=1e-6) for both in zip(*pair, strict=True))
    states = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    assert all(one[0] == other[0] and torch.equal(one[1], other[1]) for one, other in states)


def calls(model: Deep) -> list[int]:
    return [block.calls for block in model.blocks]


@pytest.mark.parametrize(("every", "expected"), [(1, [2, 2, 2, 2]), (3, [2, 1, 1, 2])])
def test_blocks_are_computed_a_second_time(tmp_path: Path, every: int, expected: list[int]) -> None:
    model = trained(
        tmp_path,
        deep(),
        max_steps=1,
        activation_checkpointing=True,
        activation_checkpointing_kwargs={"every_n_layers": every},
    )
    assert calls(model) == expected


def test_blocks_are_computed_once_in_an_evaluation(tmp_path: Path) -> None:
    made = trainer(tmp_path, given={"model": deep()}, max_steps=1, activation_checkpointing=True)
    made.train()
    before = calls(made.model)[0]
    made.evaluate()
    assert calls(made.model)[0] == before + 2


def test_the_model_is_as_before_after_the_training(tmp_path: Path) -> None:
    model = trained(tmp_path, deep(), max_steps=1, activation_checkpointing=True)
    assert not any("forward" in vars(module) for module in model.modules())


def test_a_forward_that_was_replaced_comes_back(tmp_path: Path) -> None:
    model = deep()
    own = model.blocks[0].forward
    model.blocks[0].forward = own  # type: ignore[method-assign]
    trained(tmp_path, model, max_steps=1, activation_checkpointing=True)
    assert vars(model.blocks[0])["forward"] is own


class Copies(TrainerCallback):
    """Copies the model in both ways during the training."""

    def on_step_end(self, *given: Any, model: Any, **parts: Any) -> None:
        self.copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        self.names = [list(one.state_dict()) for one in (model, *self.copies)]


def test_a_copy_within_the_training_is_a_model_of_its_own(tmp_path: Path) -> None:
    copies = Copies()
    model = trained(tmp_path, deep(), copies, max_steps=1, activation_checkpointing=True)
    before = calls(model)
    for one in copies.copies:
        one.train()(torch.ones(3, 4)).sum().backward()
        assert one.blocks[0].layer.weight.grad is not None
    assert calls(model) == before
    assert copies.names[0] == copies.names[1] == copies.names[2]


def test_a_second_trainer_of_the_same_model_computes_blocks_twice_too(tmp_path: Path) -> None:
    model = deep()
    for _ in range(2):
        trained(tmp_path, model, max_steps=1, activation_checkpointing=True)
    assert calls(model) == [4, 4, 4, 4]


class Own(Net):
    """A model with a method of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        self.given.append(options)

    def gradient_checkpointing_disable(self) -> None:
        self.given.append("off")


def test_a_method_of_the_model_is_called_instead(tmp_path: Path) -> None:
    options = {"every_n_layers": 2, "preserve_rng_state": False}
    model = trained(
        tmp_path,
        Own(),
        max_steps=1,
        activation_checkpointing=True,
        activation_checkpointing_kwargs=options,
    )
    kwargs = {"use_reentrant": False, "preserve_rng_state": False}
    assert model.given == [{"gradient_checkpointing_kwargs": kwargs, "every_n_layers": 2}, "off"]


def test_the_blocks_that_were_found_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trainer_torch")
    trained(tmp_path, deep(), max_steps=1, activation_checkpointing=True)
    assert "Block" in caplog.text


@pytest.mark.parametrize(
    ("model", "options", "names"),
    [(Net, None, "Net"), (Deep, {"modules": ["Block", "Missing"]}, "Missing")],
)
def test_a_model_without_such_blocks_is_refused(
    tmp_path: Path, model: Any, options: Any, names: str
) -> None:
    made = trainer(
        tmp_path,
        given={"model": model()},
        activation_checkpointing=True,
        activation_checkpointing_kwargs=options,
    )
    with pytest.raises(ValueError, match=names):
        made.train()


def test_old_names_set_the_new_ones_with_a_warning() -> None:
    with pytest.warns(FutureWarning, match="activation_checkpointing"):
        args = TrainingArguments(gradient_checkpointing=True)
    assert (args.activation_checkpointing, args.gradient_checkpointing) == (True, True)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("[1", "activation_checkpointing_kwargs"),
        ({"every_n_layers": 0}, "every_n_layers"),
        ({"modules": "Block"}, "modules"),
    ],
)
def test_wrong_options_are_refused_with_the_arguments(options: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        TrainingArguments(activation_checkpointing=True, activation_checkpointing_kwargs=options)


def test_options_without_the_argument_are_refused() -> None:
    with pytest.raises(ValueError, match="activation_checkpointing"):
        TrainingArguments(activation_checkpointing_kwargs={"offload": True})


def test_a_compiler_that_computes_blocks_with_other_random_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match="torch_compile_backend"):
        TrainingArguments(activation_checkpointing=True, torch_compile_backend="eager")
