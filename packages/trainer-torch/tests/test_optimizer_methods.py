"""The methods of the Trainer that create its optimizer and scheduler, and overrides of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from resuming import THREE_EPOCHS, assert_exact
from small import arguments, compute_loss, data, logged, net, trainer
from torch.optim import LBFGS, SGD, Adam, AdamW
from torch.optim.lr_scheduler import StepLR

from trainer_torch import Trainer


class OwnOptimizer(Trainer):
    """Makes its optimizer itself, as subclasses of transformers' Trainer do."""

    def create_optimizer(self) -> Any:  # type: ignore[override]
        """Make an optimizer with momentum for the weights, and one rate for each layer."""
        if self.optimizer is None:
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
    args = arguments(output_dir, **THREE_EPOCHS)
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


def test_an_optimizer_that_is_only_returned_is_an_error_that_says_where_to_set_it(
    tmp_path: Path,
) -> None:
    class Returns(Trainer):
        def create_optimizer(self) -> Any:  # type: ignore[override]
            return SGD(self.model.parameters(), lr=0.1)

    made = Returns(net(), arguments(tmp_path), None, data(), compute_loss=compute_loss)
    with pytest.raises(ValueError, match=r"create_optimizer.*self\.optimizer"):
        made.train()


class NeedsOptimizer(Trainer):
    def create_scheduler(self, num_training_steps: int, optimizer: Any) -> Any:  # type: ignore[override]
        return None


class NamesStepsOtherwise(Trainer):
    def create_optimizer_and_scheduler(self, steps: int) -> None:
        return None


class NeedsModel(Trainer):
    def create_optimizer(self, model: Any) -> Any:  # type: ignore[override]
        return None


class NeedsStart(Trainer):
    def log(self, logs: Any, start_time: float) -> None:  # type: ignore[override]
        return None


class NeedsSize(Trainer):
    def get_train_dataloader(self, size: int) -> Any:  # type: ignore[override]
        return None


@pytest.mark.parametrize(
    "kind", [NeedsOptimizer, NamesStepsOtherwise, NeedsModel, NeedsStart, NeedsSize]
)
def test_an_override_that_cannot_be_called_is_refused_when_the_trainer_is_made(
    tmp_path: Path, kind: type[Trainer]
) -> None:
    (method,) = [name for name in vars(kind) if not name.startswith("_")]
    with pytest.raises(TypeError, match=f"{kind.__name__}.{method}"):
        kind(net(), arguments(tmp_path), None, data(), compute_loss=compute_loss)


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


def test_a_new_model_of_model_init_gets_an_optimizer_of_its_own(tmp_path: Path) -> None:
    made = trainer(tmp_path, given={"model": None, "model_init": net}, max_steps=2)
    made.create_optimizer_and_scheduler(num_training_steps=2)
    losses = []
    for _ in range(2):
        made.train()
        losses.append(logged(made, "loss"))
    assert losses[0] == losses[1]


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
