"""The optimizer and the learning rate schedules that the arguments describe."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

if TYPE_CHECKING:
    from trainer_torch.arguments import TrainingArguments


def create_optimizer(model: nn.Module, args: TrainingArguments) -> AdamW:
    """Return AdamW over the parameters of `model` that require gradients.

    Raises:
        ValueError: There is no such parameter.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            "The model has no parameter that requires a gradient, so there is nothing to train."
        )
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": args.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
    )


def create_scheduler(
    optimizer: Optimizer, args: TrainingArguments, num_training_steps: int
) -> LambdaLR:
    """Return the schedule `args.lr_scheduler_type` over `num_training_steps` update steps."""
    warmup = args.get_warmup_steps(num_training_steps)
    return LambdaLR(
        optimizer,
        partial(SCHEDULES[args.lr_scheduler_type], warmup=warmup, total=num_training_steps),
    )


def _linear(step: int, *, warmup: int, total: int) -> float:
    """Rise from 0 over the warm-up, then fall to 0 at the end."""
    return (
        _rise(step, warmup) if step < warmup else max(0.0, (total - step) / max(1, total - warmup))
    )


def _cosine(step: int, *, warmup: int, total: int) -> float:
    """Rise from 0 over the warm-up, then fall to 0 along half a cosine."""
    if step < warmup:
        return _rise(step, warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))))


def _constant(step: int, *, warmup: int, total: int) -> float:
    """Stay the same, without a warm-up."""
    return 1.0


def _constant_with_warmup(step: int, *, warmup: int, total: int) -> float:
    """Rise from 0 over the warm-up, then stay the same."""
    return _rise(step, warmup) if step < warmup else 1.0


def _rise(step: int, warmup: int) -> float:
    return step / max(1, warmup)


SCHEDULES: Final[dict[str, Callable[..., float]]] = {
    "linear": _linear,
    "cosine": _cosine,
    "constant": _constant,
    "constant_with_warmup": _constant_with_warmup,
}
"""What `lr_scheduler_type` may be, and its factor at a step, each as in transformers."""
