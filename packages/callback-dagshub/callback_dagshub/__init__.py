"""A training callback that logs to a DagsHub repository: runs to its MLflow, the model to git."""

from __future__ import annotations

from callback_dagshub.callback import DagsHubCallback
from callback_dagshub.signing import RequestHeaders
from callback_dagshub.tracker import DagsHubTracker

__all__ = ["DagsHubCallback", "DagsHubTracker", "RequestHeaders"]
