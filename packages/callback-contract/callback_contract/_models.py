"""Makes a `Learner`: a small torch model, or a plain stand-in if torch is not installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from callback_contract._learner import Config, Learner


def make_learner(make_model: Callable[[], Any]) -> Learner:
    """Return a learner for the author's model, or for a small one by default.

    Args:
        make_model: `Subject.make_model`, which returns `None` for the default model.
    """
    if find_spec("torch") is None:
        return PlainLearner()
    from callback_contract._torch_model import TorchLearner

    return TorchLearner(make_model)


class PlainModel:
    """The part of a model that callbacks read, without any framework."""

    def __init__(self) -> None:
        self.training = True
        self.config = Config(hidden_size=8)
        self.weights = [0.5, -0.25]

    def train(self, mode: bool = True) -> PlainModel:
        """Set the mode to training or evaluation."""
        self.training = mode
        return self

    def eval(self) -> PlainModel:
        """Set the mode to evaluation."""
        return self.train(False)


class PlainOptimizer:
    """The part of a torch optimizer that callbacks read."""

    def __init__(self) -> None:
        self.param_groups = [{"lr": 0.125}]
        self.state: dict[Any, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the groups and the state."""
        return {"param_groups": [dict(group) for group in self.param_groups], "state": {}}


class PlainSchedule:
    """The part of a torch schedule that callbacks read."""

    def __init__(self, optimizer: PlainOptimizer) -> None:
        self.optimizer = optimizer

    def get_last_lr(self) -> list[float]:
        """Return the learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the learning rates."""
        return {"_last_lr": self.get_last_lr()}


class PlainLearner:
    """Shrinks the weights of a `PlainModel` at each step."""

    def __init__(self) -> None:
        self.model = PlainModel()
        self.optimizer = PlainOptimizer()
        self.lr_scheduler = PlainSchedule(self.optimizer)
        self.train_dataloader: Sequence[Sequence[float]] = [[0.5, 1.5], [2.5, 3.5]]
        self.eval_dataloader: Sequence[Sequence[float]] = [[4.5, 5.5]]

    def begin_epoch(self) -> None:
        """Do nothing: the data are lists."""

    def backward(self) -> float:
        """Return the loss."""
        return sum(weight * weight for weight in self.model.weights)

    def step(self) -> None:
        """Update the weights."""
        lr = self.optimizer.param_groups[0]["lr"]
        self.model.weights = [weight * (1 - lr) for weight in self.model.weights]

    def zero_grad(self) -> None:
        """Do nothing: there are no gradients."""
