"""Running a model over data without training it: the batches, the predictions and the metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from trainer_torch.outputs import batch_size_of, map_tensors, plain_number

if TYPE_CHECKING:
    from trainer_torch.trainer import Trainer


class EvalPrediction(NamedTuple):
    """What `compute_metrics` is given.

    Attributes:
        predictions: The model's predictions of all samples, as numpy arrays of shape (samples,
            ...).
        label_ids: The labels of all samples likewise, `None` where the data has none.
    """

    predictions: Any
    label_ids: Any


class PredictionOutput(NamedTuple):
    """What `Trainer.predict` returns: what `EvalPrediction` holds, and the metrics by name."""

    predictions: Any
    label_ids: Any
    metrics: dict[str, float]


ComputeMetrics = Callable[[EvalPrediction], Mapping[str, float]]


def run_evaluation(
    trainer: Trainer, dataloader: DataLoader[Any], prefix: str, keep_predictions: bool
) -> PredictionOutput:
    """Run the trainer's model over `dataloader`, firing `on_prediction_step` after each batch.

    Each of several ranks runs its own batches, and all return the same.

    Args:
        trainer: Its model, loss, metrics and callbacks are used.
        dataloader: The batches of this rank.
        prefix: Put before each metric's name, with an underscore.
        keep_predictions: Whether predictions and labels are kept and returned; they are where there
            is a `compute_metrics`.

    Returns:
        The predictions and labels, and the metrics: the mean loss over the samples as `loss`; where
        there are labels, what `compute_metrics` returns; `runtime` in seconds, `samples_per_second`
        and `steps_per_second`.
    """
    keep_predictions = keep_predictions or trainer.compute_metrics is not None
    begun, samples, steps = time.perf_counter(), 0, 0
    losses: list[Tensor] = []
    predictions: list[Any] = []
    labels: list[Any] = []
    trainer.world.share_buffers(trainer.model)
    with evaluating(trainer.model):
        for batch in dataloader:
            loss, predicted, label = trainer.prediction_step(batch)
            size = batch_size_of(batch)
            samples, steps = samples + size, steps + 1
            if loss is not None:
                losses.append(loss.detach() * size)
            if keep_predictions:
                predictions.append(map_tensors(_to_cpu, predicted))
                labels.append(map_tensors(_to_cpu, label))
            trainer.fire(trainer.callback_handler.on_prediction_step)
    loss_sums = [torch.stack(losses).sum().cpu()] if losses else []
    of_ranks = trainer.world.gather((samples, steps, loss_sums, predictions, labels))
    samples, steps = sum(rank[0] for rank in of_ranks), max(rank[1] for rank in of_ranks)
    loss_sums = [loss_sum for rank in of_ranks for loss_sum in rank[2]]
    if steps == 0:
        raise ValueError("There is nothing to evaluate: the dataset is empty.")
    evaluated = EvalPrediction(
        _concatenated(_in_order([rank[3] for rank in of_ranks])),
        _concatenated(_in_order([rank[4] for rank in of_ranks])),
    )
    metrics: dict[str, float] = {}
    if loss_sums:
        metrics["loss"] = (torch.stack(loss_sums).sum() / samples).item()
    if trainer.compute_metrics is not None and evaluated.label_ids is not None:
        metrics.update(trainer.compute_metrics(evaluated))
    metrics.update(speed(begun, samples, steps))
    named = {f"{prefix}_{name}": plain_number(name, value) for name, value in metrics.items()}
    # The main process's: a metric that is not the same everywhere must not make ranks part.
    return PredictionOutput(*evaluated, trainer.world.gather(named)[0])


def speed(begun: float, samples: float, steps: int) -> dict[str, float]:
    """Return the seconds since `begun`, and the samples and steps done in each of them."""
    runtime = time.perf_counter() - begun
    return {
        "runtime": round(runtime, 4),
        "samples_per_second": round(samples / runtime, 3),
        "steps_per_second": round(steps / runtime, 3),
    }


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into evaluation mode without gradients, and each module back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _in_order(batches_of: list[list[Any]]) -> list[Any]:
    """Return the batches of all ranks in the order of the data, of which each took one in turn."""
    nothing = object()
    turns = zip_longest(*batches_of, fillvalue=nothing)
    return [batch for turn in turns for batch in turn if batch is not nothing]


def _to_cpu(tensor: Tensor) -> Tensor:
    # numpy has no bfloat16
    return tensor.detach().to(
        "cpu", torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype
    )


def _concatenated(batches: list[Any]) -> Any:
    """Return the structure of `batches`, which all have the same, with its leaves joined.

    Tensors become arrays, other leaves lists.
    """
    first = batches[0] if batches else None
    if isinstance(first, Tensor):
        if len({batch.shape[1:] for batch in batches}) > 1:
            shapes = sorted({tuple(batch.shape) for batch in batches})
            raise ValueError(
                f"Predictions or labels cannot be joined, their batches have the shapes {shapes}. "
                "Let data_collator pad all of them to one length."
            )
        return np.concatenate([np.atleast_1d(batch.numpy()) for batch in batches])
    if isinstance(first, Mapping):
        return {name: _concatenated([batch[name] for batch in batches]) for name in first}
    if isinstance(first, (tuple, list)):
        if first and isinstance(first[0], (Tensor, Mapping, tuple, list)):
            return tuple(_concatenated(list(parts)) for parts in zip(*batches, strict=True))
        return [leaf for batch in batches for leaf in batch]
    return None if first is None else batches
