"""Checks before training starts, of what would otherwise fail in its middle."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import IterableDataset, default_collate

from trainer_torch.outputs import to_device
from trainer_torch.seeding import untouched_rng

if TYPE_CHECKING:
    from trainer_torch.trainer import Trainer


def check_processes() -> None:
    """Refuse to run as one of several processes, each of which would train and save on its own.

    Raises:
        RuntimeError: A launcher such as torchrun started several.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size > 1:
        raise RuntimeError(
            f"WORLD_SIZE is {world_size}, but this version of trainer-torch trains in one "
            "process. Start it without torchrun."
        )


def check_trainer(trainer: Trainer) -> None:
    """Run one batch through model and loss, leaving no trace, and look at the outcome.

    Only data that can be read by index is looked at: reading an iterable dataset might use it up.

    Raises:
        ValueError: There is no loss to train on, no prediction for `compute_metrics`, or no metric
            for the learning rate schedule.
    """
    if (
        isinstance(trainer.lr_scheduler, ReduceLROnPlateau)
        and trainer.args.metric_for_best_model is None
    ):
        raise ValueError(
            "ReduceLROnPlateau steps on a metric: set metric_for_best_model, for example to 'loss'."
        )
    dataset = trainer.train_dataset
    if dataset is None or isinstance(dataset, IterableDataset):
        return
    buffers = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
    with untouched_rng():
        batch = _first_batch(trainer, dataset)
        trainer.model.train()
        loss, predictions = trainer.compute_loss(
            trainer.model, to_device(batch, trainer.args.device)
        )
    with torch.no_grad():
        for name, buffer in trainer.model.named_buffers():
            buffer.copy_(buffers[name])
    if loss is None:
        raise ValueError(
            f"{type(trainer.model).__name__} returned no loss for a batch of training. Return the "
            "loss from its forward (as the first of a tuple, as ['loss'] or as .loss; one "
            "number), or give the Trainer a compute_loss function that takes the model and a "
            "batch."
        )
    if not loss.requires_grad:
        raise ValueError(
            "The loss has no gradient: it was detached, or computed under torch.no_grad()."
        )
    if trainer.compute_metrics is not None and predictions is None:
        raise ValueError(
            "compute_metrics needs predictions, but only a loss was returned. Return them beside "
            "the loss: (loss, predictions)."
        )


def _first_batch(trainer: Trainer, dataset: Any) -> Any:
    collate = trainer.data_collator or default_collate
    return collate(
        [
            dataset[index]
            for index in range(min(trainer.args.per_device_train_batch_size, len(dataset)))
        ]
    )
