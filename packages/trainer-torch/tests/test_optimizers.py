"""The optimizers by name: what they are, what they refuse, and that they resume."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import torch
from small import arguments, compute_loss, data, logged, net, trainer
from test_resume_changes import EVERY_STEP, assert_exact
from test_resume_saved import Rows
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, AdamW
from torch.optim.lr_scheduler import StepLR

from trainer_torch import Trainer, TrainingArguments
from trainer_torch.optimizer_names import OPTIMIZERS

NAMES = [name for name in OPTIMIZERS if name != "muon" or hasattr(torch.optim, "Muon")]
OPTIONS = {
    "sgd": "momentum=0.9, nesterov=True",
    "adagrad": "lr_decay=0.1,eps=1e-6",
    "rmsprop": "momentum=0.5,centered=yes,alpha=0.9,eps=1e-6",
    "muon": "lr=0.1,momentum=0.9,nesterov=no,ns_steps=3,adjust_lr_fn=original",
}


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, None) for name in NAMES] + [(name, OPTIONS[name]) for name in NAMES if name in OPTIONS],
)
def test_each_optimizer_resumes_to_the_bit(tmp_path: Path, name: str, options: str | None) -> None:
    def make(output_dir: Path) -> Trainer:
        return trainer(output_dir, optim=name, optim_args=options, weight_decay=0.1, **EVERY_STEP)

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
    whole = trainer(tmp_path, optim="adamw_torch", **EVERY_STEP)
    whole.train()
    caplog.clear()
    resumed = trainer(tmp_path / "resumed", optim="adamw_torch_fused", **EVERY_STEP)
    resumed.train(tmp_path / "checkpoint-4")
    assert resumed.get_optimizer_group("layers.0.weight")["fused"] is True
    assert logged(resumed, "loss") == pytest.approx(logged(whole, "loss"), rel=1e-4)
    [new] = warned(caplog)
    assert "optim 'adamw_torch_fused' instead of 'adamw_torch'" in new


def test_a_checkpoint_of_another_optimizer_is_refused_by_name(tmp_path: Path) -> None:
    trainer(tmp_path, **EVERY_STEP).train()
    with pytest.raises(ValueError, match=r"AdamW.*SGD.*optim"):
        trainer(tmp_path, optim="sgd").train(resume_from_checkpoint=True)


def test_options_that_the_checkpoint_decides_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = {**EVERY_STEP, "optim": "sgd", "max_steps": 3}
    trainer(tmp_path, optim_args="momentum=0.5", **usual).train()
    caplog.clear()
    resumed = trainer(tmp_path, optim_args="momentum=0.9", **usual)
    resumed.train(tmp_path / "checkpoint-2")
    [held] = warned(caplog)
    assert "optim_args" in held
    assert "the checkpoint's hold" in held
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


class OwnOptimizer(Trainer):
    """Makes its optimizer itself, as subclasses of transformers' Trainer do."""

    calls = 0

    def create_optimizer(self) -> Any:  # type: ignore[override]
        """Make an optimizer with momentum for the weights, and one rate for each layer."""
        if self.optimizer is None:
            type(self).calls += 1
            layers = self.model.layers
            groups = [
                {"params": layers[0].parameters(), "lr": 0.1},
                {"params": layers[3].parameters(), "lr": 0.02},
            ]
            self.optimizer = SGD(groups, lr=0.1, momentum=0.9)
        return self.optimizer


class OwnScheduler(Trainer):
    """Makes its scheduler itself."""

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make a schedule in steps."""
        if self.lr_scheduler is None:
            optimizer = self.optimizer if optimizer is None else optimizer
            self.lr_scheduler = StepLR(optimizer, num_training_steps // 3, gamma=0.5)
        return self.lr_scheduler


class OwnBoth(Trainer):
    """Makes both in one method."""

    def create_optimizer_and_scheduler(self, num_training_steps: int) -> None:
        """Make both."""
        self.optimizer = Adam(self.model.parameters(), lr=0.02)
        self.lr_scheduler = StepLR(self.optimizer, num_training_steps // 3)


class OwnBehindSuper(Trainer):
    """Changes what the Trainer makes."""

    def create_optimizer(self, model: Any = None) -> Any:
        """Raise the rate of the group that is not decayed."""
        super().create_optimizer(model)
        self.optimizer.param_groups[1]["lr"] *= 10
        return self.optimizer


OWN = {
    OwnOptimizer: ("SGD", "Schedule"),
    OwnScheduler: ("AdamW", "StepLR"),
    OwnBoth: ("Adam", "StepLR"),
    OwnBehindSuper: ("AdamW", "Schedule"),
}


def own(cls: Any, output_dir: Path) -> Trainer:
    args = arguments(output_dir, **EVERY_STEP)
    return cls(net(), args, train_dataset=data(), compute_loss=compute_loss)


@pytest.mark.parametrize("cls", OWN)
def test_what_a_subclass_creates_is_used_and_resumes_to_the_bit(tmp_path: Path, cls: Any) -> None:
    trained = own(cls, tmp_path / "once")
    trained.train()
    names = (type(trained.optimizer).__name__, type(trained.lr_scheduler).__name__)
    assert names == OWN[cls]
    assert_exact(tmp_path, lambda output_dir: own(cls, output_dir), 2, 7)


@pytest.mark.parametrize("cls", OWN)
def test_what_a_subclass_creates_is_created_again_for_a_second_training(
    tmp_path: Path, cls: Any
) -> None:
    trained = own(cls, tmp_path)
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    trained.train()
    losses, optimizer = logged(trained, "loss"), trained.optimizer
    trained.model.load_state_dict(before)
    trained.train()
    assert logged(trained, "loss") == losses
    assert trained.optimizer is not optimizer


def test_a_subclass_that_creates_nothing_is_an_error_that_names_the_method(tmp_path: Path) -> None:
    class Forgets(Trainer):
        def create_optimizer(self, model: Any = None) -> Any:
            return SGD(self.model.parameters(), lr=0.1)

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            return None

    with pytest.raises(ValueError, match=r"create_optimizer .*self\.optimizer"):
        own(Forgets, tmp_path).train()


def test_a_subclass_that_creates_an_optimizer_with_a_closure_is_refused(tmp_path: Path) -> None:
    class Closure(Trainer):
        def create_optimizer(self, model: Any = None) -> Any:
            self.optimizer = LBFGS(self.model.parameters())
            return self.optimizer

    with pytest.raises(ValueError, match=r"LBFGS.*closure"):
        own(Closure, tmp_path).train()


def test_an_optimizer_that_the_user_creates_or_assigns_before_training_is_used(
    tmp_path: Path,
) -> None:
    made = trainer(tmp_path, max_steps=2)
    made.create_optimizer().param_groups[0]["lr"] = 0.5
    created = made.optimizer
    made.train()
    assert made.optimizer is created
    assert logged(made, "learning_rate")[0] == 0.5
    made.optimizer = SGD(made.model.parameters(), lr=0.25)
    made.train()
    assert logged(made, "learning_rate")[0] == 0.25


def test_a_schedule_that_the_user_creates_before_training_gets_the_right_length(
    tmp_path: Path,
) -> None:
    made = trainer(tmp_path, max_steps=4, learning_rate=0.5)
    made.create_optimizer_and_scheduler(num_training_steps=1000)
    made.train()
    assert logged(made, "learning_rate") == pytest.approx([0.5, 0.375, 0.25, 0.125])


def test_the_trainer_tells_of_its_optimizer(tmp_path: Path) -> None:
    made = trainer(tmp_path, learning_rate=0.5)
    for call in (made.get_learning_rates, made.get_optimizer_group):
        with pytest.raises(ValueError, match="optimizer"):
            call()
    made.create_optimizer()
    assert made.get_learning_rates() == [0.5, 0.5]
    assert made.get_num_trainable_parameters() == 4 * 8 + 8 + 8 * 3 + 3
    decayed, others = made.optimizer.param_groups
    assert made.get_optimizer_group(made.model.layers[3].bias) is others
    assert made.get_optimizer_group("layers.3.weight") is decayed
    assert [len(parameters) for parameters in made.get_optimizer_group()] == [2, 2]
    with pytest.raises(ValueError, match=r"layers\.9"):
        made.get_optimizer_group("layers.9.weight")


def test_a_class_of_the_arguments_can_be_asked_for_as_in_transformers(tmp_path: Path) -> None:
    made = trainer(tmp_path, learning_rate=0.5)
    cls, options = Trainer.get_optimizer_cls_and_kwargs(made.args)
    assert cls is AdamW
    assert cls(made.model.parameters(), **options).defaults["lr"] == 0.5


def test_a_model_without_parameters_to_train_is_an_error(tmp_path: Path) -> None:
    made = trainer(tmp_path, given={"model": net().requires_grad_(False)})
    with pytest.raises(ValueError, match="parameter"):
        made.create_optimizer()
