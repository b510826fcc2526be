"""A training callback that keeps checkpoints and the log of a training in its Flyte task."""

from __future__ import annotations

from callback_flyte.callback import FlyteCallback
from callback_flyte.store import restored_checkpoint

__all__ = ["FlyteCallback", "restored_checkpoint"]
