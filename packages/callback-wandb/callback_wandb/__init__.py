"""A training callback that logs to Weights & Biases."""

from __future__ import annotations

from callback_wandb.callback import WandbCallback
from callback_wandb.tracker import WandbTracker

__all__ = ["WandbCallback", "WandbTracker"]
