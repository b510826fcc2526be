"""Fills the arguments and the state of callbacks from Lightning's trainer."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from callback_core.tracking import TrackerCallback
from callback_lightning.framework import Trainer
from callback_lightning.training import Training


def fill_arguments(training: Training, trainer: Trainer) -> None:
    """Set the arguments and the state to what Lightning knows about the training."""
    args, state = training.args, training.state
    args.gradient_accumulation_steps = trainer.accumulate_grad_batches
    args.max_steps = trainer.max_steps
    args.logging_strategy = "steps" if trainer.log_every_n_steps else "no"
    args.logging_steps = trainer.log_every_n_steps or 1
    args.eval_strategy = "epoch" if trainer.enable_validation else "no"
    args.save_strategy = "epoch" if trainer.checkpoint_callbacks else "no"
    monitors = [one for one in trainer.checkpoint_callbacks if getattr(one, "monitor", None)]
    monitor, mode = (monitors[0].monitor, monitors[0].mode) if monitors else (None, "min")
    training.decide_by(monitor, mode)
    batches, epochs = trainer.num_training_batches, trainer.max_epochs
    steps: float = max(trainer.max_steps, 0)
    if math.isfinite(batches) and batches > 0:
        per_epoch = math.ceil(batches / trainer.accumulate_grad_batches)
        if epochs is not None and epochs > 0:
            steps = min(steps or math.inf, per_epoch * epochs)
        epochs = epochs if epochs and epochs > 0 else math.ceil(steps / per_epoch)
    state.max_steps = int(steps) or -1  # unknown
    state.num_train_epochs = max(epochs or 0, 0)
    args.num_train_epochs = state.num_train_epochs or args.num_train_epochs


def find_directory(training: Training, trainer: Trainer, tell: Callable[[str], None]) -> None:
    """Set `output_dir` to Lightning's `default_root_dir`, unless the user has set it.

    Args:
        training: The training, which has the arguments.
        trainer: Lightning's trainer.
        tell: Logs a warning.
    """
    if training.has_directory:
        return
    directory = str(trainer.default_root_dir)
    if "://" in directory:
        tell(
            f"default_root_dir is {directory}, which is not on this machine, so the journal of the "
            "trackers is in the working directory. To choose another, set output_dir in args."
        )
        directory = "."
    training.args.output_dir = os.path.abspath(os.path.expanduser(directory))


def track_the_same(one: Any, other: Any) -> bool:
    """Return whether two callbacks log to the same tracker with equal settings."""
    if not (isinstance(one, TrackerCallback) and isinstance(other, TrackerCallback)):
        return False
    if one.tracker is other.tracker:
        return True
    settings = one.tracker.settings()
    same_kind = type(one.tracker) is type(other.tracker)
    return same_kind and settings is not None and settings == other.tracker.settings()
