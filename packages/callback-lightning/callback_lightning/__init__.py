"""Training callbacks and experiment trackers for Lightning's Trainer."""

from callback_lightning.callbacks import LightningCallbacks
from callback_lightning.logger import TrackerLogger

__all__ = ["LightningCallbacks", "TrackerLogger"]
