"""A training callback that logs to Comet."""

from __future__ import annotations

from callback_comet.callback import CometCallback
from callback_comet.tracker import CometTracker

__all__ = ["CometCallback", "CometTracker"]
