"""Checks before training starts, of what would otherwise fail in its middle."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import IterableDataset

from callback_core import IntervalStrategy, best_metric_key
from trainer_torch.outputs import forward, require_loss, split_output, to_device
from trainer_torch.seeding import untouched_rng

if TYPE_CHECKING:
    from trainer_torch.trainer import Trainer


def check_parts(trainer: Trainer) -> None:
    """Look at what a trainer was made of.

    Raises:
        ValueError: Parts that do not go together.
    """
    args, datasets = trainer.args, trainer.eval_dataset
    if (args.eval_strategy != IntervalStrategy.NO or args.eval_on_start) and not has_data(datasets):
        raise ValueError(
            f"eval_strategy is {args.eval_strategy!r} and eval_on_start {args.eval_on_start}, but "
            "there is nothing to evaluate on: give the Trainer an eval_dataset that is not empty, "
            "or evaluate neither."
        )
    if isinstance(datasets, Mapping) and args.metric_for_best_model is not None:
        key = best_metric_key(args.metric_for_best_model)
        if not any(key.startswith(f"eval_{name}_") for name in datasets):
            raise ValueError(
                f"metric_for_best_model is {args.metric_for_best_model!r}, but with several "
                "evaluation datasets it begins with the name of one: "
                + ", ".join(f"{name}_{args.metric_for_best_model}" for name in datasets)
            )
    optimizer, lr_scheduler = trainer.optimizer, trainer.lr_scheduler
    if lr_scheduler is not None and getattr(lr_scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError(
            "The learning rate schedule in optimizers belongs to another optimizer than the one "
            "beside it. Give both: (optimizer, schedule of that optimizer)."
        )


def check_training(trainer: Trainer) -> None:
    """Look at a training that is about to begin.

    Raises:
        ValueError: There is no metric for the schedule, a checkpoint that is not evaluated, no
            directory to save to, or weights that cannot be saved.
    """
    args, state = trainer.args, trainer.state
    if isinstance(trainer.lr_scheduler, ReduceLROnPlateau) and args.metric_for_best_model is None:
        raise ValueError(
            "ReduceLROnPlateau steps on a metric: set metric_for_best_model, for example to 'loss'."
        )
    if (
        args.load_best_model_at_end
        and args.save_strategy == IntervalStrategy.STEPS
        and state.save_steps % state.eval_steps != 0
    ):
        raise ValueError(
            "load_best_model_at_end needs every checkpoint to be evaluated, but of "
            f"{state.max_steps} steps, save_steps is {state.save_steps} and eval_steps "
            f"{state.eval_steps}."
        )
    if args.save_strategy != IntervalStrategy.NO:
        try:
            Path(args.output_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"output_dir cannot be made: {error}. Choose another.") from error
        for name, value in trainer.model.state_dict().items():
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"The model's state has {name!r}, which is no tensor and cannot be saved as "
                    "safetensors. Leave it out of the state, or set save_strategy to 'no'."
                )


def check_model(trainer: Trainer) -> None:
    """Run one batch through a model that is to return its loss, and put its tensors back.

    Only data that can be read by index is looked at: reading an iterable dataset might use it up.

    Raises:
        ValueError: There is no loss to train on, or no prediction for `compute_metrics`.
    """
    if isinstance(trainer.train_dataloader.dataset, IterableDataset):
        return
    state = trainer.model.state_dict()
    before = {name: tensor.to("cpu", copy=True) for name, tensor in state.items()}
    with untouched_rng():
        batch = next(iter(trainer.train_dataloader))
        trainer.model.train()
        loss, predictions = split_output(
            forward(trainer.model, to_device(batch, trainer.args.device))
        )
    with torch.no_grad():  # running statistics, moving averages of weights
        for name, tensor in state.items():
            tensor.copy_(before[name])
    require_loss(loss, type(trainer.model).__name__)
    if trainer.compute_metrics is not None and predictions is None:
        raise ValueError(
            "compute_metrics needs predictions, but the model returns only a loss. Return them "
            "beside it: (loss, predictions)."
        )


def has_data(dataset: object) -> bool:
    """Return whether `dataset`, or each of a mapping, is there and not known to be empty."""
    if isinstance(dataset, Mapping):
        return len(dataset) > 0 and all(has_data(part) for part in dataset.values())
    return dataset is not None and not (isinstance(dataset, Sized) and len(dataset) == 0)
