"""Checks before training starts that find errors which would otherwise occur in the middle."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import IterableDataset

from callback_core import IntervalStrategy, best_metric_key
from trainer_torch.arguments import TrainingArguments
from trainer_torch.outputs import forward, require_loss, split_output, to_device
from trainer_torch.run import TrainingRun
from trainer_torch.seeding import preserved_rng


def check_parts(
    args: TrainingArguments, eval_dataset: object, optimizer: Any, lr_scheduler: Any
) -> None:
    """Check that the parts of a trainer fit together.

    Raises:
        ValueError: They do not. The message says which and what to do.
    """
    evaluates = args.eval_strategy != IntervalStrategy.NO or args.eval_on_start
    if evaluates and not has_data(eval_dataset):
        raise ValueError(
            f"eval_strategy is {args.eval_strategy!r} and eval_on_start {args.eval_on_start}, but "
            "there is no data to evaluate on. Give the Trainer an eval_dataset that is not empty, "
            "or turn both off."
        )
    if isinstance(eval_dataset, Mapping) and args.metric_for_best_model is not None:
        key = best_metric_key(args.metric_for_best_model)
        if not any(key.startswith(f"eval_{name}_") for name in eval_dataset):
            raise ValueError(
                f"metric_for_best_model is {args.metric_for_best_model!r}, but with several "
                "evaluation datasets it must start with the name of one: "
                + ", ".join(f"{name}_{args.metric_for_best_model}" for name in eval_dataset)
            )
    if lr_scheduler is not None and getattr(lr_scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError(
            "The scheduler in optimizers belongs to another optimizer than the one beside it. "
            "Pass both: (optimizer, scheduler of that optimizer)."
        )


def check_training(run: TrainingRun) -> None:
    """Check a training that is about to begin.

    Raises:
        ValueError: The scheduler needs a metric and there is none; a checkpoint would not be
            evaluated; the output directory cannot be created; or the weights cannot be saved.
    """
    args, state = run.args, run.state
    if isinstance(run.lr_scheduler, ReduceLROnPlateau) and args.metric_for_best_model is None:
        raise ValueError(
            "ReduceLROnPlateau steps on a metric: set metric_for_best_model, for example to 'loss'."
        )
    if (
        args.load_best_model_at_end
        and args.save_strategy == IntervalStrategy.STEPS
        and state.save_steps % state.eval_steps != 0
    ):
        raise ValueError(
            "load_best_model_at_end needs an evaluation at every checkpoint, but for "
            f"{state.max_steps} steps, save_steps is {state.save_steps} and eval_steps is "
            f"{state.eval_steps}."
        )
    if args.save_strategy != IntervalStrategy.NO:
        _check_saving(args.output_dir, run.model)


def _check_saving(output_dir: str, model: nn.Module) -> None:
    try:
        Path(output_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"output_dir cannot be created: {error}. Choose another.") from error
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"The model's state has {name!r}, which is not a tensor and cannot be saved as "
                "safetensors. Remove it from the state, or set save_strategy to 'no'."
            )


def check_model(run: TrainingRun, needs_predictions: bool) -> None:
    """Run a model that returns its own loss on one batch, and restore its tensors.

    An iterable dataset is not read, because reading might use it up.

    Raises:
        ValueError: The model returns no loss to train on, or no predictions although
            `needs_predictions`.
    """
    if isinstance(run.train_dataloader.dataset, IterableDataset):
        return
    state = run.model.state_dict()
    before = {name: tensor.to("cpu", copy=True) for name, tensor in state.items()}
    with preserved_rng():
        batch = next(iter(run.train_dataloader))
        run.model.train()
        loss, predictions = split_output(forward(run.model, to_device(batch, run.args.device)))
    with torch.no_grad():  # a forward pass may change running statistics and moving averages
        for name, tensor in state.items():
            tensor.copy_(before[name])
    require_loss(loss, type(run.model).__name__)
    if needs_predictions and predictions is None:
        raise ValueError(
            "compute_metrics needs predictions, but the model returns only a loss. Return both: "
            "(loss, predictions)."
        )


def has_data(dataset: object) -> bool:
    """Return whether `dataset`, or each one in a mapping, exists and is not known to be empty."""
    if isinstance(dataset, Mapping):
        return len(dataset) > 0 and all(has_data(part) for part in dataset.values())
    return dataset is not None and not (isinstance(dataset, Sized) and len(dataset) == 0)
