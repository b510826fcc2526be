"""Experiment trackers for Accelerate that never make a training wait, and that survive a kill."""

from __future__ import annotations

from callback_accelerate.checkpoints import continue_runs
from callback_accelerate.registration import make_trackers, register_trackers
from callback_accelerate.tracker import CallbackTracker

__all__ = ["CallbackTracker", "continue_runs", "make_trackers", "register_trackers"]
