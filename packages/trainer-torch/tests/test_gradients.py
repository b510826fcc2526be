from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD

from trainer_torch.optimizers.gradients import drop_gradients


def with_gradient(parameter: nn.Parameter) -> nn.Parameter:
    parameter.grad = torch.ones_like(parameter)
    return parameter


def test_gradients_of_model_and_optimizer_are_removed() -> None:
    model, other = nn.Linear(2, 2), with_gradient(nn.Parameter(torch.ones(3)))
    parameters = [with_gradient(one) for one in model.parameters()]
    drop_gradients(model, SGD([model.weight, other], lr=0.1))
    assert [one.grad for one in (*parameters, other)] == [None] * 3


class Counting(nn.Linear):
    calls = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.calls += 1


class CountingSGD(SGD):
    calls = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.calls += 1


def test_an_own_zero_grad_is_called() -> None:
    model = Counting(2, 2)
    optimizer = CountingSGD(model.parameters(), lr=0.1)
    drop_gradients(model, optimizer)
    assert (model.calls, optimizer.calls) == (1, 1)
