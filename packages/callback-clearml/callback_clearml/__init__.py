"""A training callback that logs to ClearML."""

from __future__ import annotations

from callback_clearml.callback import ClearMLCallback
from callback_clearml.tracker import ClearMLTracker

__all__ = ["ClearMLCallback", "ClearMLTracker"]
