"""Creates the optimizer and the learning rate scheduler that the arguments describe."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from trainer_torch.arguments import TrainingArguments
from trainer_torch.schedules import SCHEDULES


def create_optimizer(model: nn.Module, args: TrainingArguments) -> AdamW:
    """Return AdamW for the parameters of `model` that require gradients.

    Weight decay applies to parameters with two or more dimensions, not to biases and norms.

    Raises:
        ValueError: No parameter requires a gradient.
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
    schedule = SCHEDULES[args.lr_scheduler_type]
    return LambdaLR(optimizer, partial(schedule, warmup=warmup, total=num_training_steps))
