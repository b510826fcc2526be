"""The schedules, against transformers' values, and what is decayed."""

from __future__ import annotations

import pytest
from small import net
from torch import nn

from trainer_torch import TrainingArguments
from trainer_torch.optimizers import create_optimizer, create_scheduler

# transformers 5.23.0, get_scheduler(name, AdamW(lr=1), num_warmup_steps=2, num_training_steps=6)
EXPECTED = {
    "linear": [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0],
    "cosine": [0.0, 0.5, 1.0, 0.8535533905932737, 0.5, 0.14644660940672627, 0.0],
    "constant": [1.0] * 7,
    "constant_with_warmup": [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_learning_rate_follows_transformers_schedule(name: str) -> None:
    args = TrainingArguments(learning_rate=1.0, lr_scheduler_type=name, warmup_steps=2)
    optimizer = create_optimizer(net(), args)
    scheduler = create_scheduler(optimizer, args, 6)
    rates = []
    for _ in range(7):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(EXPECTED[name])


def test_only_matrices_and_higher_are_decayed() -> None:
    optimizer = create_optimizer(net(), TrainingArguments(weight_decay=0.1))
    decay = {
        parameter.ndim: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert decay == {2: 0.1, 1: 0.0}


def test_the_arguments_reach_the_optimizer() -> None:
    args = TrainingArguments(learning_rate=0.5, adam_beta1=0.8, adam_beta2=0.9, adam_epsilon=0.1)
    [group, *_] = create_optimizer(net(), args).param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.8, 0.9), 0.1)


def test_a_model_without_parameters_to_train_is_an_error() -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="parameter"):
        create_optimizer(frozen, TrainingArguments())
