"""Trainings that are stopped and resumed, and equal undisturbed ones to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from small import Net, logged, net
from torch import Tensor, nn

from callback_core import TrainerCallback
from trainer_torch import Trainer

EVERY_STEP: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1}
THREE_EPOCHS: dict[str, Any] = {**EVERY_STEP, "num_train_epochs": 3}


class StopAt(TrainerCallback):
    """Ends the training after a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop |= state.global_step >= self.step


class Unfreezes(TrainerCallback):
    """Unfreezes the first layer in the second epoch, and trains it with groups of its own."""

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if int(state.epoch) == 1:
            layer = parts["model"].layers[0].requires_grad_(True)
            for group in self.groups(layer):
                parts["optimizer"].add_param_group(group)

    def groups(self, layer: nn.Module) -> Iterable[dict[str, Any]]:
        yield {"params": layer.parameters(), "lr": 0.01}


def backbone_frozen() -> Net:
    model = net()
    model.layers[0].requires_grad_(False)
    return model


def weights(trained: Trainer) -> list[Tensor]:
    return [value.detach().clone() for value in trained.model.state_dict().values()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def whole_and_resumed(make: Callable[..., Trainer], output_dir: Path) -> tuple[Trainer, Trainer]:
    """Return an undisturbed training, and one that was resumed after its third step.

    Args:
        make: Returns a new trainer with further callbacks, in a directory.
        output_dir: The directory of both.
    """
    whole = make(output_dir / "whole")
    whole.train()
    make(output_dir / "stopped", StopAt(3)).train()
    resumed = make(output_dir / "stopped")
    resumed.train(resume_from_checkpoint=True)
    return whole, resumed


def assert_exact(output_dir: Path, make: Callable[[Path], Trainer], *steps: int) -> None:
    """Assert that a training equals itself after a resumption from each of `steps`.

    Args:
        output_dir: The directory.
        make: Returns a new trainer that saves at each step, in a directory.
        steps: The steps.
    """
    whole = make(output_dir)
    whole.train()
    for step in steps:
        resumed = make(output_dir / f"from-{step}")
        resumed.train(output_dir / f"checkpoint-{step}")
        assert resumed.state.global_step == whole.state.global_step
        for name in ("loss", "learning_rate", "grad_norm"):
            assert logged(resumed, name) == logged(whole, name), (step, name)
        for one, other in zip(weights(whole), weights(resumed), strict=True):
            assert torch.equal(one, other), step
