"""A training callback that writes the logs of a run for TensorBoard."""

from __future__ import annotations

from callback_tensorboard.callback import TensorBoardCallback
from callback_tensorboard.tracker import TensorBoardTracker

__all__ = ["TensorBoardCallback", "TensorBoardTracker"]
