"""The optimizers by name: what they are, what they refuse, and that they resume."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import THREE_EPOCHS, assert_exact
from small import logged, net, trainer, warned
from test_resume_saved import Rows
from torch import Tensor, nn
from torch.optim import LBFGS, SGD

from trainer_torch import Trainer, TrainingArguments
from trainer_torch.optimizers.optimizer_names import OPTIMIZERS

NAMES = [name for name in OPTIMIZERS if name != "muon" or hasattr(torch.optim, "Muon")]
OPTIONS = {
    "sgd": "momentum=0.9, nesterov=True",
    "adagrad": "lr_decay=0.1,eps=1e-6",
    "rmsprop": "momentum=0.5,centered=yes,alpha=0.9,eps=1e-6",
    "muon": "lr=0.1,momentum=0.9,nesterov=no,ns_steps=3,adjust_lr_fn=original",
}


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, None) for name in NAMES] + [(name, OPTIONS[name]) for name in NAMES if name in OPTIONS],
)
def test_each_optimizer_resumes_to_the_bit(tmp_path: Path, name: str, options: str | None) -> None:
    def make(output_dir: Path) -> Trainer:
        return trainer(output_dir, optim=name, optim_args=options, weight_decay=0.1, **THREE_EPOCHS)

    assert_exact(tmp_path, make, 1, 7)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {"lr": 0.5, "betas": (0.8, 0.9), "eps": 0.1, "fused": True}),
        ({"optim": "adamw_torch"}, {"lr": 0.5, "betas": (0.8, 0.9), "eps": 0.1, "fused": None}),
        ({"optim": "sgd", "optim_args": OPTIONS["sgd"]}, {"momentum": 0.9, "nesterov": True}),
        ({"optim": "adagrad", "optim_args": OPTIONS["adagrad"]}, {"lr_decay": 0.1, "eps": 1e-6}),
        ({"optim": "rmsprop", "optim_args": OPTIONS["rmsprop"]}, {"centered": True, "alpha": 0.9}),
    ],
)
def test_the_arguments_reach_the_optimizer(
    tmp_path: Path, changed: dict[str, Any], expected: dict[str, Any]
) -> None:
    adam = {"adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 0.1}
    made = trainer(tmp_path, learning_rate=0.5, weight_decay=0.2, **adam, **changed)
    decayed, others = made.create_optimizer().param_groups
    for group in (decayed, others):
        assert {name: group[name] for name in expected} == expected
        assert group["lr"] == 0.5
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.2, 0.0)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"optim": "adamw_bnb_8bit"}, ["adamw_bnb_8bit", "optimizers=(optimizer, None)"]),
        ({"optim": "schedule_free_adamw"}, ["schedule_free_adamw", "optimizers=(optimizer, None)"]),
        ({"optim": "adamw_troch"}, ["adamw_troch", "Did you mean 'adamw_torch'"]),
        ({"optim": "lion_8bits"}, ["lion_8bits", "Did you mean 'lion_8bit'", "muon"]),
        ({"optim": None}, ["None", "sgd"]),
        ({"optim_args": "amsgrad=True"}, ["amsgrad", "none"]),
        ({"optim": "sgd", "optim_args": "momentun=0.9"}, ["momentun", "momentum, dampening"]),
        ({"optim": "sgd", "optim_args": "weight_decay=0.1"}, ["weight_decay", "momentum"]),
        ({"optim": "sgd", "optim_args": "momentum=much"}, ["momentum", "much"]),
        ({"optim": "sgd", "optim_args": "momentum"}, ["momentum", "=0.9"]),
        ({"optim": "sgd", "optim_args": "nesterov=ture"}, ["nesterov", "ture"]),
        ({"optim": "sgd", "optim_args": {"momentum": 0.9}}, ["optim_args", "key=value"]),
    ],
)
def test_a_wrong_name_or_option_is_refused(changed: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(ValueError, match="optim") as error:
        TrainingArguments(**changed)
    assert [part for part in named if part not in str(error.value)] == []


class Names(StrEnum):
    """Like the enums of transformers."""

    SGD = "sgd"
    COSINE = "cosine"


def test_members_of_enums_are_their_values() -> None:
    args = TrainingArguments(optim=Names.SGD, lr_scheduler_type=Names.COSINE)
    assert (type(args.optim), type(args.lr_scheduler_type)) == (str, str)


class Norms(nn.Module):
    """Parameters that transformers decays, and others."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.ln = nn.LayerNorm(4)
        self.attn_norm = nn.Linear(4, 4, bias=False)
        self.normalized = nn.Linear(4, 3, bias=False)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, features: Tensor) -> Tensor:
        scaled = self.scale * self.ln(self.first(features))
        return self.normalized(self.attn_norm(scaled))


def test_biases_and_norms_are_not_decayed_and_all_else_is(tmp_path: Path) -> None:
    made = trainer(tmp_path, given={"model": Norms()})
    decayed = {"first.weight", "normalized.weight", "scale"}
    assert set(made.get_decay_parameter_names(made.model)) == decayed


def test_a_subclass_chooses_what_is_decayed(tmp_path: Path) -> None:
    class Own(Trainer):
        def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
            names = super().get_decay_parameter_names(model)
            return [name for name in names if "layers.3" not in name]

    made = Own(net(), trainer(tmp_path, weight_decay=0.1).args)
    made.create_optimizer()
    assert made.get_optimizer_group("layers.0.weight")["weight_decay"] == 0.1
    assert made.get_optimizer_group("layers.3.weight")["weight_decay"] == 0.0


def test_a_model_with_complex_parameters_trains_without_fusing_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Waves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 3, dtype=torch.complex64))

        def forward(self, features: Tensor) -> Tensor:
            return (features.to(torch.complex64) @ self.weight).real

    trained = trainer(tmp_path, given={"model": Waves()}, max_steps=2, max_grad_norm=0)
    trained.train()
    assert trained.get_optimizer_group("weight")["fused"] is None
    [warning] = warned(caplog)
    assert "fused" in warning


@pytest.mark.parametrize("name", ["sgd", "adagrad"])
def test_sparse_gradients_train_with_the_optimizers_that_support_them(
    tmp_path: Path, name: str
) -> None:
    losses = []
    for is_sparse in (True, False):
        trained = trainer(tmp_path, given={"model": Rows(is_sparse)}, optim=name)
        trained.train()
        losses.append(logged(trained, "loss"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("name", ["rmsprop", "adafactor", "adagrad"])
def test_sparse_gradients_that_an_optimizer_does_not_support_are_refused(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match=r"rows.*optimizers"):
        trainer(tmp_path, given={"model": Rows(True)}, optim=name, weight_decay=0.1).train()


def test_whether_the_optimizer_is_fused_may_change_when_a_training_resumes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trainer(tmp_path, optim="adamw_torch", **THREE_EPOCHS)
    whole.train()
    caplog.clear()
    resumed = trainer(tmp_path / "resumed", optim="adamw_torch_fused", **THREE_EPOCHS)
    resumed.train(tmp_path / "checkpoint-4")
    assert resumed.get_optimizer_group("layers.0.weight")["fused"] is True
    assert logged(resumed, "loss") == pytest.approx(logged(whole, "loss"), rel=1e-4)
    [new] = warned(caplog)
    assert "optim 'adamw_torch_fused' instead of 'adamw_torch'" in new


def test_a_checkpoint_of_another_optimizer_is_refused_by_name(tmp_path: Path) -> None:
    trainer(tmp_path, **THREE_EPOCHS).train()
    with pytest.raises(ValueError, match=r"AdamW.*SGD.*optim"):
        trainer(tmp_path, optim="sgd").train(resume_from_checkpoint=True)


def test_options_that_the_checkpoint_decides_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = {**THREE_EPOCHS, "optim": "sgd", "max_steps": 3}
    trainer(tmp_path, optim_args="momentum=0.5", **usual).train()
    caplog.clear()
    resumed = trainer(tmp_path, optim_args="momentum=0.9", **usual)
    resumed.train(tmp_path / "checkpoint-2")
    [held] = warned(caplog)
    assert "optim_args" in held
    assert resumed.optimizer.param_groups[0]["momentum"] == 0.5


def test_a_class_and_its_arguments_make_the_optimizer(tmp_path: Path) -> None:
    given = {"optimizer_cls_and_kwargs": (SGD, {"lr": 0.1, "momentum": 0.9})}
    trained = trainer(tmp_path, given=given, weight_decay=0.2, max_steps=2)
    trained.train()
    assert type(trained.optimizer) is SGD
    decayed, _ = trained.optimizer.param_groups
    assert (decayed["momentum"], decayed["weight_decay"]) == (0.9, 0.2)
    assert logged(trained, "learning_rate")[0] == 0.1


def test_a_class_without_a_learning_rate_has_its_own_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = trainer(tmp_path, given={"optimizer_cls_and_kwargs": (SGD, {})}, max_steps=1)
    trained.train()
    assert trained.get_learning_rates() == [0.0, 0.0]
    [warning] = warned(caplog)
    assert "0.001" in warning


def test_a_factory_makes_the_optimizer_of_the_model(tmp_path: Path) -> None:
    class Factory:
        def __call__(self, model: nn.Module, lr: float) -> SGD:
            return SGD(model.parameters(), lr=lr)

    trained = trainer(tmp_path, given={"optimizer_cls_and_kwargs": (Factory, {"lr": 0.1})})
    trained.train()
    assert type(trained.optimizer) is SGD


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"optimizer_cls_and_kwargs": SGD}, TypeError),
        ({"optimizer_cls_and_kwargs": (SGD,)}, TypeError),
        ({"optimizer_cls_and_kwargs": (SGD, 0.1)}, TypeError),
        ({"optimizer_cls_and_kwargs": ("sgd", {})}, TypeError),
        ({"optimizer_cls_and_kwargs": (LBFGS, {"lr": 0.1})}, ValueError),
    ],
)
def test_what_is_no_class_with_arguments_is_refused(
    tmp_path: Path, given: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="optimizer_cls_and_kwargs"):
        trainer(tmp_path, given=given)


def test_a_class_beside_an_optimizer_is_refused(tmp_path: Path) -> None:
    model = net()
    given = {
        "model": model,
        "optimizers": (SGD(model.parameters(), lr=0.1), None),
        "optimizer_cls_and_kwargs": (SGD, {}),
    }
    with pytest.raises(ValueError, match=r"optimizer_cls_and_kwargs.*optimizers"):
        trainer(tmp_path, given=given)


class OwnClosure(SGD):
    """An optimizer of a user that evaluates the loss again."""

    def step(self, closure: Any) -> Any:
        """Do a step."""
        return super().step(closure)


@pytest.mark.parametrize("kind", [LBFGS, OwnClosure])
def test_an_optimizer_that_needs_a_closure_is_refused_when_the_trainer_is_made(
    tmp_path: Path, kind: Any
) -> None:
    model = net()
    given = {"model": model, "optimizers": (kind(model.parameters(), lr=0.1), None)}
    with pytest.raises(ValueError, match=rf"{kind.__name__}.*closure"):
        trainer(tmp_path, given=given)


class Modes(SGD):
    """An optimizer with other weights for evaluations, as the schedule-free ones."""

    def train(self) -> None:
        """Switch to the weights for training."""

    def eval(self) -> None:
        """Switch to the weights for evaluations."""


def test_an_optimizer_with_modes_is_refused_when_the_trainer_is_made(tmp_path: Path) -> None:
    model = net()
    given = {"model": model, "optimizers": (Modes(model.parameters(), lr=0.1), None)}
    with pytest.raises(ValueError, match=r"Modes.*eval"):
        trainer(tmp_path, given=given)
