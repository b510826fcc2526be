"""A training callback that logs to Azure Machine Learning."""

from __future__ import annotations

from callback_azureml.callback import AzureMLCallback
from callback_azureml.tracker import AzureMLTracker

__all__ = ["AzureMLCallback", "AzureMLTracker"]
