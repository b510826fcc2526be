"""Evaluation: runs a model on batches and computes metrics, without training it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from trainer_torch.outputs import batch_size_of, map_tensors, plain_number
from trainer_torch.world import SINGLE_PROCESS, World


class EvalPrediction(NamedTuple):
    """The argument of `compute_metrics`.

    Attributes:
        predictions: The predictions for all samples, as numpy arrays of shape (samples, ...).
        label_ids: The labels of all samples in the same form, or `None` if the data has none.
    """

    predictions: Any
    label_ids: Any


class PredictionOutput(NamedTuple):
    """The result of `Trainer.predict`: predictions, labels and metrics.

    Attributes:
        predictions: As in `EvalPrediction`.
        label_ids: As in `EvalPrediction`.
        metrics: The metrics by name.
    """

    predictions: Any
    label_ids: Any
    metrics: dict[str, float]


ComputeMetrics = Callable[[EvalPrediction], Mapping[str, float]]

PredictionStep = Callable[[Any], tuple[Tensor | None, Any, Any]]
"""Takes a batch. Returns its loss, predictions and labels; `None` for what is missing."""


@dataclass
class _Outputs:
    """What one rank collects. Everything in it is on the CPU."""

    samples: int = 0
    steps: int = 0
    loss_sum: Tensor | None = None
    predictions: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)


def run_evaluation(
    model: nn.Module,
    batches: Iterable[Any],
    step: PredictionStep,
    on_batch: Callable[[], None],
    *,
    prefix: str,
    compute_metrics: ComputeMetrics | None = None,
    keep_predictions: bool = False,
    world: World = SINGLE_PROCESS,
) -> PredictionOutput:
    """Evaluate `model` on `batches`. All ranks return the same.

    Args:
        model: The model to evaluate.
        batches: The batches of this rank.
        step: Runs the model on a batch.
        on_batch: Called after each batch.
        prefix: Put before the name of each metric, with an underscore.
        compute_metrics: Computes further metrics, if the data has labels.
        keep_predictions: Return predictions and labels even without `compute_metrics`.
        world: The processes that share the batches.

    Returns:
        The predictions, the labels and the metrics. The metrics are the mean loss over the samples
        as `loss`, those of `compute_metrics`, `runtime` in seconds, `samples_per_second` and
        `steps_per_second`.

    Raises:
        ValueError: There is no batch on any rank.
    """
    start_time = time.perf_counter()
    keep_predictions = keep_predictions or compute_metrics is not None
    world.share_buffers(model)
    with evaluation_mode(model):
        own = _collect(batches, step, on_batch, keep_predictions)
    outputs = world.gather(own)
    samples, steps = sum(rank.samples for rank in outputs), max(rank.steps for rank in outputs)
    if steps == 0:
        raise ValueError("There is nothing to evaluate: the dataset is empty.")
    evaluated = EvalPrediction(
        _concatenate(_interleave([rank.predictions for rank in outputs])),
        _concatenate(_interleave([rank.labels for rank in outputs])),
    )
    metrics: dict[str, float] = {}
    loss_sums = [rank.loss_sum for rank in outputs if rank.loss_sum is not None]
    if loss_sums:
        metrics["loss"] = (torch.stack(loss_sums).sum() / samples).item()
    if compute_metrics is not None and evaluated.label_ids is not None:
        metrics.update(compute_metrics(evaluated))
    metrics.update(speed_metrics(start_time, samples, steps))
    named = {f"{prefix}_{name}": plain_number(name, value) for name, value in metrics.items()}
    # Use rank 0's metrics, so that ranks never diverge in what they decide by them.
    return PredictionOutput(*evaluated, world.gather(named)[0])


def _collect(
    batches: Iterable[Any], step: PredictionStep, on_batch: Callable[[], None], keep: bool
) -> _Outputs:
    """Run `step` on each batch. Predictions and labels are collected only if `keep` is set."""
    outputs, losses = _Outputs(), []
    for batch in batches:
        loss, predictions, labels = step(batch)
        size = batch_size_of(batch)
        outputs.samples += size
        outputs.steps += 1
        if loss is not None:
            losses.append(loss.detach() * size)  # stays on its device until the end
        if keep:
            outputs.predictions.append(map_tensors(_to_cpu, predictions))
            outputs.labels.append(map_tensors(_to_cpu, labels))
        on_batch()
    if losses:
        outputs.loss_sum = torch.stack(losses).sum().cpu()
    return outputs


def speed_metrics(start_time: float, samples: float, steps: int) -> dict[str, float]:
    """Return the seconds since `start_time`, and the samples and steps per second."""
    runtime = time.perf_counter() - start_time
    return {
        "runtime": round(runtime, 4),
        "samples_per_second": round(samples / runtime, 3),
        "steps_per_second": round(steps / runtime, 3),
    }


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switch `model` to evaluation without gradients. Restores the mode of each module on exit."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _interleave(batches_of_ranks: list[list[Any]]) -> list[Any]:
    """Return the batches of all ranks in the order of the data, which each rank took in turn."""
    absent = object()
    turns = zip_longest(*batches_of_ranks, fillvalue=absent)
    return [batch for turn in turns for batch in turn if batch is not absent]


def _to_cpu(tensor: Tensor) -> Tensor:
    dtype = torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype  # unknown to numpy
    return tensor.detach().to("cpu", dtype)


def _concatenate(batches: list[Any]) -> Any:
    """Concatenate `batches` of one structure, leaf by leaf.

    Tensors become numpy arrays, other leaves lists.
    """
    first = batches[0] if batches else None
    if isinstance(first, Tensor):
        if len({batch.shape[1:] for batch in batches}) > 1:
            shapes = sorted({tuple(batch.shape) for batch in batches})
            raise ValueError(
                f"Predictions or labels cannot be concatenated: batches have the shapes {shapes}. "
                "Let data_collator pad all of them to one length."
            )
        return np.concatenate([np.atleast_1d(batch.numpy()) for batch in batches])
    if isinstance(first, Mapping):
        return {name: _concatenate([batch[name] for batch in batches]) for name in first}
    if isinstance(first, (tuple, list)):
        if first and isinstance(first[0], (Tensor, Mapping, tuple, list)):
            return tuple(_concatenate(list(parts)) for parts in zip(*batches, strict=True))
        return [leaf for batch in batches for leaf in batch]
    return None if first is None else batches
