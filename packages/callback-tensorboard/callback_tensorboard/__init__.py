"""A training callback that writes the logs of a run for TensorBoard."""

from __future__ import annotations

from callback_tensorboard.callback import TensorBoardCallback

__all__ = ["TensorBoardCallback"]
