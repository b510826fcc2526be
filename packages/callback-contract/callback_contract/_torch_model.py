"""A small torch model, and the learner that trains it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from callback_contract._learner import Config


class SmallModel(nn.Module):
    """Has the parts that a callback may disturb: dropout, running statistics, a frozen module."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Config(hidden_size=8)
        self.body = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.25)
        self.frozen = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.25)).requires_grad_(False)
        self.head = nn.Linear(8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs of shape (batch, 1) for inputs of shape (batch, 4)."""
        hidden = self.dropout(self.norm(self.body(inputs)))
        outputs: Tensor = self.head(self.frozen(hidden))
        return outputs


class TorchLearner:
    """Trains a model with SGD and momentum on random data.

    The initial weights and the data are the same each time. Creating them does not advance the
    global random generator.
    """

    def __init__(self, make_model: Callable[[], nn.Module | None]) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = make_model() or SmallModel()
            data = TensorDataset(torch.randn(16, 4))
        trainable = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.SGD(trainable, lr=0.125, momentum=0.5)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: 1 / (1 + step)
        )
        self.train_dataloader = DataLoader(data, batch_size=4, shuffle=True)
        self.eval_dataloader = DataLoader(data, batch_size=8)
        self._batches: Iterator[Any] = iter(())

    def begin_epoch(self) -> None:
        """Begin to iterate over the training data, in a random order."""
        self._batches = iter(self.train_dataloader)

    def backward(self) -> Tensor:
        """Add the gradients of the next batch, and return its detached loss."""
        batch = next(self._batches, None)
        if batch is None:
            self.begin_epoch()
            batch = next(self._batches)
        output = self.model(batch[0])
        loss: Tensor = output.float().square().mean()
        torch.autograd.backward(loss)
        return loss.detach()

    def step(self) -> None:
        """Update the weights."""
        self.optimizer.step()

    def zero_grad(self) -> None:
        """Step the schedule and drop the gradients."""
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
