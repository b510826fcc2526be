"""A training callback that sends a run to Weights & Biases."""

from __future__ import annotations

from callback_wandb.callback import WandbCallback
from callback_wandb.tracker import WandbTracker

__all__ = ["WandbCallback", "WandbTracker"]
