"""A training callback that logs to TensorBoard."""

from __future__ import annotations

from callback_tensorboard.callback import TensorBoardCallback
from callback_tensorboard.tracker import TensorBoardTracker

__all__ = ["TensorBoardCallback", "TensorBoardTracker"]
