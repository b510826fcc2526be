"""`Learner`: the model that a rule trains, with its optimizer, schedule and data."""

from __future__ import annotations

import json
from typing import Any, Protocol


class Config:
    """A model's configuration."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        return dict(self.values)

    def to_json_string(self) -> str:
        """Return the configuration as indented JSON."""
        return json.dumps(self.values, indent=2)


class Learner(Protocol):
    """A model with its optimizer, schedule and data."""

    model: Any
    optimizer: Any
    lr_scheduler: Any
    train_dataloader: Any
    eval_dataloader: Any

    def begin_epoch(self) -> None:
        """Begin to iterate over the training data."""

    def backward(self) -> Any:
        """Add the gradients of a batch, and return its detached loss."""

    def step(self) -> None:
        """Update the weights."""

    def zero_grad(self) -> None:
        """Step the schedule and drop the gradients."""
