"""Evaluation: runs a model on batches and computes metrics, without training it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from trainer_torch.batch_size import count_loaded
from trainer_torch.batches import describe
from trainer_torch.joining import SeveralPredictions, join, to_cpu
from trainer_torch.outputs import plain_number
from trainer_torch.world import SINGLE_PROCESS, World

METRICS: Final = ("loss", "runtime", "samples_per_second", "steps_per_second")
"""The metrics of an evaluation without `compute_metrics`."""


class EvalPrediction(NamedTuple):
    """The argument of `compute_metrics`.

    Attributes:
        predictions: The predictions for all samples, as a numpy array of shape (samples, ...).
            Several predictions are a tuple or a dict of such arrays, as the model returned them. If
            batches are of different lengths, shorter ones are filled with -100, as in transformers.
            Lists with an item for each sample, such as the boxes in an image, become one list.
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


BatchSize = Callable[[Any, int | None], int | None]
"""Takes a batch, and how many samples the loader has put into it. Returns how many are in it.
`None` stands for an unknown number."""


@dataclass
class _Outputs:
    """What one rank collects, with an item for each batch. Tensors in it are on the CPU."""

    sizes: list[int | None] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)
    predictions: list[Any] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    batch: str = ""
    """What the first batch consists of."""


def run_evaluation(
    model: nn.Module,
    batches: Iterable[Any],
    step: PredictionStep,
    on_batch: Callable[[], None],
    *,
    prefix: str,
    batch_size: BatchSize,
    warn: Callable[[str], None],
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
        prefix: Put before the name of each metric that does not have it yet, with an underscore.
        batch_size: Counts the samples in a batch.
        warn: Logs a warning, unless it has been logged before.
        compute_metrics: Computes further metrics, if the data has labels.
        keep_predictions: Return predictions and labels even without `compute_metrics`.
        world: The processes that share the batches.

    Returns:
        The predictions, the labels and the metrics. The metrics are the mean loss over the samples
        as `loss`, those of `compute_metrics`, `runtime` in seconds, `samples_per_second` and
        `steps_per_second`.

    Raises:
        TypeError: `compute_metrics` returns no mapping, or one of what is not a single number.
        ValueError: There is no batch on any rank; the number of samples in the batches, by which
            losses are weighted, is unknown; or the predictions cannot be joined.
    """
    start_time = time.perf_counter()
    keep_predictions = keep_predictions or compute_metrics is not None
    world.share_buffers(model)
    with evaluation_mode(model):
        own = _collect(batches, step, on_batch, batch_size, keep_predictions)
    ranks = world.gather(own)
    outputs = _merged(ranks)
    if not outputs.sizes:
        raise ValueError("There is nothing to evaluate: the dataset is empty.")
    predictions = join(outputs.predictions, outputs.sizes)
    labels = join(outputs.labels, outputs.sizes)
    if type(predictions) is tuple and isinstance(labels, np.ndarray):
        predictions = SeveralPredictions(predictions)
    evaluated = EvalPrediction(predictions, labels)
    metrics = _metrics(outputs, evaluated, compute_metrics, prefix)
    _warn_of_missing_metrics(outputs, compute_metrics, keep_predictions, warn)
    steps = max(len(rank.sizes) for rank in ranks)
    metrics.update(speed_metrics(start_time, outputs.sizes, steps, warn))
    named = {f"{prefix}_{name}": plain_number(name, value) for name, value in metrics.items()}
    # Use rank 0's metrics, so that ranks never diverge in what they decide by them.
    return PredictionOutput(*evaluated, world.gather(named)[0])


def _collect(
    batches: Iterable[Any],
    step: PredictionStep,
    on_batch: Callable[[], None],
    batch_size: BatchSize,
    keep: bool,
) -> _Outputs:
    """Run `step` on each batch. Predictions and labels are collected only if `keep` is set."""
    outputs, losses = _Outputs(), []
    for index, batch in enumerate(batches):
        outputs.batch = outputs.batch or describe(batch)
        outputs.sizes.append(batch_size(batch, count_loaded(batches, index)))
        loss, predictions, labels = step(batch)
        losses.append(_detached(loss))  # stays on its device until the end
        if keep:
            outputs.predictions.append(to_cpu(predictions))
            outputs.labels.append(to_cpu(labels))
        on_batch()
    outputs.losses = [None if loss is None else float(loss) for loss in losses]
    return outputs


def _detached(loss: Any) -> Any:
    """Return the loss of a batch, after checking that it is one number."""
    if not isinstance(loss, Tensor):
        return loss
    if loss.numel() != 1:
        raise ValueError(
            f"prediction_step returned a loss of shape {tuple(loss.shape)}, not one number. Return "
            "the mean."
        )
    return loss.detach()


def _merged(ranks: list[_Outputs]) -> _Outputs:
    """Return the outputs of all ranks as those of one, in the order of the data."""
    return _Outputs(
        _interleave([rank.sizes for rank in ranks]),
        _interleave([rank.losses for rank in ranks]),
        _interleave([rank.predictions for rank in ranks]),
        _interleave([rank.labels for rank in ranks]),
        ranks[0].batch,
    )


def _metrics(
    outputs: _Outputs,
    evaluated: EvalPrediction,
    compute_metrics: ComputeMetrics | None,
    prefix: str,
) -> dict[str, Any]:
    """Return the mean loss and the computed metrics, without prefix, as far as there are any."""
    metrics: dict[str, Any] = {}
    if any(loss is not None for loss in outputs.losses):
        metrics["loss"] = _mean_loss(outputs.losses, outputs.sizes, outputs.batch)
    if compute_metrics is not None and evaluated.label_ids is not None:
        metrics.update(_without_prefix(prefix, compute_metrics(evaluated)))
    return metrics


def _warn_of_missing_metrics(
    outputs: _Outputs,
    compute_metrics: ComputeMetrics | None,
    keep_predictions: bool,
    warn: Callable[[str], None],
) -> None:
    if compute_metrics is not None and all(labels is None for labels in outputs.labels):
        warn(
            "compute_metrics is not called, because there are no labels in the batches: the first "
            f"one is {outputs.batch}. If one of these holds the labels, name it in label_names."
        )
    elif not keep_predictions and outputs.losses[0] is None:
        warn(
            "The evaluation reports only its speed, because there is no loss for its batches. The "
            f"first one is {outputs.batch}. Return the loss in evaluations too."
        )


def _mean_loss(losses: list[float | None], sizes: list[int | None], batch: str) -> float:
    """Return the mean over all samples of `losses`, the means over the samples in each batch."""
    known = [loss for loss in losses if loss is not None]
    if len(known) < len(losses):
        raise ValueError(
            f"{len(known)} of {len(losses)} batches have a loss, and the others have none, so this "
            "evaluation has no mean loss. Return a loss for each batch or for none."
        )
    if len(known) == 1:
        return known[0]
    weights = [size for size in sizes if size is not None]
    if len(weights) < len(sizes):
        raise ValueError(
            "The mean loss cannot be computed, because the number of samples in each batch is "
            f"unknown. The first batch is {batch}. Its tensors have different lengths, and its "
            "data loader does not say. Name the labels in label_names, or override get_batch_size "
            "of the Trainer."
        )
    pairs = [(loss, weight) for loss, weight in zip(known, weights, strict=True) if weight > 0]
    return sum(loss * weight for loss, weight in pairs) / (sum(weights) or math.nan)


def _without_prefix(prefix: str, metrics: Any) -> dict[str, Any]:
    """Return what `compute_metrics` returned, without the prefix that a name may have already."""
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"compute_metrics returned {metrics!r}, but must return a dict of metrics by name, for "
            "example {'accuracy': 0.5}."
        )
    base = "eval_" if prefix.startswith("eval_") else ""  # of one of several datasets
    named = {
        str(name).removeprefix(f"{prefix}_").removeprefix(base): value
        for name, value in metrics.items()
    }
    if len(named) < len(metrics):
        raise ValueError(
            f"compute_metrics returned {', '.join(map(repr, metrics))}. Names that differ only in "
            f"the prefix '{prefix}_' are the same metric."
        )
    return named


def sum_known(sizes: list[int | None]) -> int | None:
    """Return the sum of `sizes`, or `None` if one of them is unknown."""
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def speed_metrics(
    start_time: float, sizes: list[int | None], steps: int, warn: Callable[[str], None]
) -> dict[str, float]:
    """Return the seconds since `start_time`, and the samples and steps per second.

    The samples are the sum of `sizes`. If one of these is unknown, their rate is left out, with a
    warning.
    """
    samples = sum_known(sizes)
    if samples is None:
        warn(
            "samples_per_second is left out, because the number of samples in a batch is unknown: "
            "its tensors have different lengths, and its data loader does not say. Override "
            "get_batch_size of the Trainer."
        )
    runtime = time.perf_counter() - start_time
    metrics = {"runtime": round(runtime, 4)}
    if samples is not None:
        metrics["samples_per_second"] = round(samples / runtime, 3)
    return {**metrics, "steps_per_second": round(steps / runtime, 3)}


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
