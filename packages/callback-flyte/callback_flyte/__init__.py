"""A training callback that stores a training's checkpoints and log in its Flyte task."""

from __future__ import annotations

from callback_flyte.callback import FlyteCallback
from callback_flyte.store import restored_checkpoint

__all__ = ["FlyteCallback", "restored_checkpoint"]
