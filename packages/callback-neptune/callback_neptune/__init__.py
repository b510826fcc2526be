"""A training callback that logs to Neptune."""

from __future__ import annotations

from callback_neptune.callback import NeptuneCallback
from callback_neptune.tracker import NeptuneTracker

__all__ = ["NeptuneCallback", "NeptuneTracker"]
