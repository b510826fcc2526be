"""Creates the optimizer and the learning rate scheduler that the arguments describe."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from trainer_torch.arguments import TrainingArguments
from trainer_torch.schedules import SCHEDULES


def create_optimizer(model: nn.Module, args: TrainingArguments) -> AdamW:
    """Return AdamW for the parameters of `model` that require gradients.

    Weight decay applies to parameters with two or more dimensions, not to biases and norms.

    Raises:
        ValueError: No parameter requires a gradient, or some have sparse gradients, which AdamW
            does not support.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(
            "The model has no parameter that requires a gradient, so there is nothing to train."
        )
    sparse = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
        and module.sparse
        and module.weight.requires_grad
    ]
    if sparse:
        raise ValueError(
            f"The gradients of {', '.join(sparse) or type(model).__name__} are sparse, which AdamW "
            "does not support. Pass another optimizer, such as optimizers=(SGD(...), None), or "
            "make the module with sparse=False."
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


class Schedule(LambdaLR):
    """A schedule of one factor for all parameter groups, also if callbacks add or remove some."""

    def get_lr(self) -> list[Any]:
        """Return the learning rate of each group."""
        groups = self.optimizer.param_groups
        if len(groups) != len(self.base_lrs):
            self.base_lrs = [group.setdefault("initial_lr", group["lr"]) for group in groups]
        self.lr_lambdas = self.lr_lambdas[:1] * len(groups)
        return super().get_lr()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of a schedule that may have had another number of groups."""
        self.lr_lambdas = self.lr_lambdas[:1] * len(state_dict["base_lrs"])
        super().load_state_dict(state_dict)


def create_scheduler(
    optimizer: Optimizer, args: TrainingArguments, num_training_steps: int
) -> Schedule:
    """Return the schedule `args.lr_scheduler_type` over `num_training_steps` update steps."""
    warmup = args.get_warmup_steps(num_training_steps)
    schedule = SCHEDULES[args.lr_scheduler_type]
    return Schedule(optimizer, partial(schedule, warmup=warmup, total=num_training_steps))
