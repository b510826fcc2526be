"""A training callback that sends a run to DagsHub: to its MLflow, and the model to its git."""

from __future__ import annotations

from callback_dagshub.callback import DagsHubCallback
from callback_dagshub.signing import RequestHeaders
from callback_dagshub.tracker import DagsHubTracker

__all__ = ["DagsHubCallback", "DagsHubTracker", "RequestHeaders"]
