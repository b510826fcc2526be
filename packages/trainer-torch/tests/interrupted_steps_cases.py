"""What each process of the tests of interrupted steps of sharded models does, and reports.

Run like `distributed_cases.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from distributed_cases import main
from sharding_cases import Blocks, made, samples, seen
from torch import Tensor

from callback_core import TrainerCallback
from trainer_torch import Trainer


class Fault(ArithmeticError):
    """Ends a backward pass."""


class Leaves(TrainerCallback):
    """Leaves the epoch once between two batches of the second step."""

    has_left = False

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1 and not self.has_left:
            self.has_left = control.should_epoch_stop = True


class FailsInBackward(Blocks):
    """Fails once in the backward pass of the sixth step, when a part of it is done."""

    calls = 0
    error: Exception = Fault()

    def forward(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        self.calls += self.training
        if self.calls != 6:
            return super().forward(features, labels)
        with fails_in_backward(self, self.error):
            return super().forward(features, labels)


@contextmanager
def fails_in_backward(model: Any, error: Exception) -> Iterator[None]:
    """Raise an error in the backward pass of what is computed in this context."""

    def fails(gradient: Tensor) -> None:
        raise error

    up = model.blocks[1].up
    hook = up.register_forward_hook(lambda *given: given[-1].register_hook(fails) and None)
    try:
        yield
    finally:
        hook.remove()


class FailsWhenRepeated(Trainer):
    """The loss of step 6 is not finite, and repeating the step to find out why fails."""

    calls = 0

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls += self.state.global_step == 5
        if self.calls == 2 and self.state.global_step == 5:
            with fails_in_backward(self.model, Fault()):
                return super().compute_loss(model, inputs, *args, **kwargs)
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        is_due = self.calls == 1 and self.state.global_step == 5
        return loss * torch.tensor(float("nan")) if is_due else loss


def left(out: Path, **changed: Any) -> dict[str, Any]:
    """Leave a step between its batches."""
    args = made(out, gradient_accumulation_steps=2, **changed).args
    trained = Trainer(Blocks(), args, train_dataset=samples(48), callbacks=[Leaves()])
    trained.train()  # epochs of one step and of three
    return seen(trained)


def failed(out: Path, is_new: bool) -> list[Any]:
    """Fail in a backward pass, train again in the same process, and compare with a whole run."""
    changed: dict[str, Any] = {"fsdp": True, "save_strategy": "steps"}
    trained = made(out, model=FailsInBackward(), **changed)
    try:
        trained.train()
    except Fault:
        if is_new:
            trained = made(out, model=trained.model, **changed)
        trained.train(True)
        return [trained.run.resumed_from and trained.run.resumed_from.name, seen(trained)]
    return []


def repeated(out: Path, fsdp: bool) -> dict[str, Any]:
    """Fail while a step is repeated."""
    args = made(out, fsdp=fsdp, on_non_finite="skip").args
    trained = FailsWhenRepeated(Blocks(), args, train_dataset=samples(600))
    trained.train()
    return {**seen(trained), "calls": trained.calls}


def interrupted(out: Path) -> dict[str, Any]:
    """Interrupt steps in each way."""
    half = {"param_dtype": "bfloat16", "reduce_dtype": "float32"}
    whole = made(out / "whole", fsdp=True)
    whole.train()
    return {
        "left": {
            "ddp": left(out / "ddp"),
            "fsdp": left(out / "fsdp", fsdp=True),
            "half": left(out / "half", fsdp=True, fsdp_config={"mixed_precision_policy": half}),
        },
        "whole": seen(whole),
        "failed": [failed(out / f"failed{is_new}", is_new) for is_new in (False, True)],
        "repeated": [repeated(out / f"repeated{fsdp}", fsdp) for fsdp in (True, False)],
    }


if __name__ == "__main__":
    main({"interrupted": interrupted})
