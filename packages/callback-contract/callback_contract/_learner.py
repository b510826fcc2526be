"""`Learner`: what a training of the rules trains."""

from __future__ import annotations

import json
from typing import Any, Protocol


class Config:
    """A model's configuration."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dict(self.values)

    def to_json_string(self) -> str:
        """Return it as indented JSON."""
        return json.dumps(self.values, indent=2)


class Learner(Protocol):
    """A model with its optimizer, schedule and data."""

    model: Any
    optimizer: Any
    lr_scheduler: Any
    train_dataloader: Any
    eval_dataloader: Any

    def begin_epoch(self) -> None:
        """Begin to go through the training data."""

    def backward(self) -> Any:
        """Add the gradients of a batch, and return its loss without a graph."""

    def step(self) -> None:
        """Update the weights."""

    def zero_grad(self) -> None:
        """Step the schedule and drop the gradients."""
