"""A training callback that logs to MLflow."""

from __future__ import annotations

from callback_mlflow.callback import MLflowCallback
from callback_mlflow.open_run import OpenRun
from callback_mlflow.tracker import MLflowTracker

__all__ = ["MLflowCallback", "MLflowTracker", "OpenRun"]
