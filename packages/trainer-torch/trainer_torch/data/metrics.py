"""The metrics of an evaluation: computed from all predictions, or batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import torch
from torch import Tensor

from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.data.batches import map_leaves, to_device
from trainer_torch.data.joining import SeveralPredictions, join, repeated, to_numpy


@dataclass(frozen=True, eq=False)
class EvalPrediction:
    """The argument of `compute_metrics`.

    As in transformers, it unpacks into predictions and labels, followed by `inputs` and `losses` as
    far as `include_for_metrics` names them.

    Attributes:
        predictions: The predictions for all samples, as a numpy array of shape (samples, ...).
            Several predictions are a tuple or a dict of such arrays, as the model returned them. If
            batches are of different lengths, shorter ones are filled with -100, as in transformers.
            Lists with an item for each sample, such as the boxes in an image, become one list. With
            `eval_do_concat_batches=False`, a list of the arrays of each batch. With
            `batch_eval_metrics`, what the model returned for one batch, as tensors on the device.
        label_ids: The labels in the same form, or `None` if the data has none.
        inputs: The inputs in the same form: the item of a batch that is called
            `model.main_input_name`, by default `input_ids`. If a batch has no such item, all of it.
        losses: For each sample, the mean loss of its batch, in the form of an array of one
            dimension.
    """

    predictions: Any
    label_ids: Any
    inputs: Any = None
    losses: Any = None

    def __iter__(self) -> Iterator[Any]:
        """Yield predictions and labels, then inputs and losses if they are included."""
        included = (part for part in (self.inputs, self.losses) if part is not None)
        return iter((self.predictions, self.label_ids, *included))

    def __getitem__(self, index: Any) -> Any:
        """Return an item of the tuple that this unpacks into."""
        return tuple(self)[index]

    def __len__(self) -> int:
        """Return the number of items that this unpacks into."""
        return sum(1 for _ in self)


class MetricOverBatches(Protocol):
    """A metric with a state, such as torchmetrics' `Metric` and `MetricCollection`."""

    def update(self, predictions: Any, labels: Any) -> Any:
        """Take in the predictions and labels of a batch."""

    def compute(self) -> Any:
        """Return the value, or values by name, of all batches since the last `reset`."""

    def reset(self) -> None:
        """Forget all batches."""


ComputeMetrics = Callable[..., Mapping[str, float]] | MetricOverBatches
"""A function of an `EvalPrediction`, and of `compute_result` with `batch_eval_metrics`; or a metric
with a state."""


@dataclass(frozen=True)
class BatchOutputs:
    """What an evaluation makes of one batch. `None` stands for what is missing or not wanted.

    Attributes:
        size: The number of samples.
        predictions: What the model returned besides the loss.
        labels: The labels.
        inputs: The inputs, if they are to be included for metrics.
        loss: The mean loss over the samples, if it is to be included for metrics.
    """

    size: int | None
    predictions: Any = None
    labels: Any = None
    inputs: Any = None
    loss: float | None = None


_MOVED_TOGETHER: Final = 16
"""The number of batches whose small outputs are moved to one place in memory."""


def is_metric_over_batches(value: Any) -> bool:
    """Return whether `value` is a metric with a state, and not a class of one."""
    names = ("update", "compute", "reset")
    return not isinstance(value, type) and all(callable(getattr(value, n, None)) for n in names)


def works_by_batch(compute_metrics: ComputeMetrics, args: TrainingArguments) -> bool:
    """Return whether `compute_metrics` takes one batch after the other."""
    return args.batch_eval_metrics or is_metric_over_batches(compute_metrics)


@dataclass
class AllBatches:
    """Keeps the outputs of all batches.

    Attributes:
        concatenates: Whether the outputs of the batches are joined to those of all samples.
    """

    concatenates: bool
    batches: list[BatchOutputs] = field(default_factory=list)

    def add(self, outputs: BatchOutputs) -> None:
        """Take in the next batch of the data."""
        self.batches.append(outputs)
        if len(self.batches) % _MOVED_TOGETHER == 0:
            self.batches[-_MOVED_TOGETHER:] = map_leaves(_moved, self.batches[-_MOVED_TOGETHER:])

    def joined(self) -> EvalPrediction:
        """Return the outputs of all batches as arrays. The batches are not kept any longer.

        Raises:
            ValueError: They cannot be joined.
        """
        batches, self.batches = self.batches, []
        sizes = [batch.size for batch in batches]

        def join_all(parts: list[Any]) -> Any:
            if all(part is None for part in parts):
                return None
            return join(parts, sizes) if self.concatenates else [to_numpy(part) for part in parts]

        predictions = join_all([batch.predictions for batch in batches])
        labels = join_all([batch.labels for batch in batches])
        if type(predictions) is tuple and isinstance(labels, np.ndarray):
            predictions = SeveralPredictions(predictions)
        inputs = join_all([batch.inputs for batch in batches])
        losses = [repeated(batch.loss, batch.size) for batch in batches]
        return EvalPrediction(predictions, labels, inputs, join_all(losses))


class EachBatch:
    """Passes each batch to `compute_metrics`, and keeps none.

    Args:
        compute_metrics: A function with the parameter `compute_result`, or a metric with a state.
        device: The device that the tensors are passed on. A metric that is on a device has its own.
    """

    def __init__(self, compute_metrics: Any, device: torch.device) -> None:
        self._metric = compute_metrics
        self._has_state = is_metric_over_batches(compute_metrics)
        self._device = (_device_of(compute_metrics) if self._has_state else None) or device
        self._waiting: EvalPrediction | None = None  # which batch is the last is known afterwards
        self._batches = self._labelled = 0
        if self._has_state:
            self._metric.reset()

    def add(self, outputs: BatchOutputs) -> None:
        """Pass on the batch before `outputs`, and hold `outputs` back.

        Raises:
            ValueError: Only some of the batches have labels.
        """
        self._batches += 1
        self._labelled += outputs.labels is not None
        if self._labelled not in (0, self._batches):
            raise ValueError(
                f"{self._labelled} of the first {self._batches} batches have labels, so there are "
                "no metrics of all of them. Return labels for each batch or for none."
            )
        if outputs.labels is None:
            return
        if self._waiting is not None:
            self._pass_on(self._waiting, is_last=False)
        losses = repeated(outputs.loss, outputs.size)
        parts = (outputs.predictions, outputs.labels, outputs.inputs, losses)
        self._waiting = EvalPrediction(*to_device(parts, self._device))

    def result(self) -> Any:
        """Return the metrics of all batches, after passing on the last one."""
        if self._waiting is None:
            return {}
        last, self._waiting = self._waiting, None
        return self._pass_on(last, is_last=True)

    def _pass_on(self, batch: EvalPrediction, is_last: bool) -> Any:
        if not self._has_state:
            return self._metric(batch, compute_result=is_last)
        self._metric.update(batch.predictions, batch.label_ids)
        if not is_last:
            return None
        with _of_this_process(self._metric):
            computed = self._metric.compute()
        return (
            computed if isinstance(computed, Mapping) else {type(self._metric).__name__: computed}
        )


def without_prefix(prefix: str, metrics: Any) -> dict[str, Any]:
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


def _moved(leaf: Any) -> Any:
    """Return a copy of a small tensor.

    A small tensor lies behind the logits of its batch. On the CPU, their memory cannot be reused
    for the logits of other batches while it stays there. With 2000 batches of 200 kB, that cost 380
    MB.
    """
    return leaf.clone() if isinstance(leaf, Tensor) and leaf.nbytes < 2**16 else leaf


def detached(value: Any) -> Any:
    """Return `value` with its tensors detached, on their devices."""
    return map_leaves(lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, value)


def _device_of(metric: Any) -> torch.device | None:
    """Return the device of the states of a metric, if it says so."""
    devices = [getattr(part, "device", None) for part in _parts_of(metric)]
    return next((device for device in devices if isinstance(device, torch.device)), None)


def _parts_of(metric: Any) -> list[Any]:
    """Return `metric` and, of a collection or a wrapper, the metrics in it."""
    modules = getattr(metric, "modules", None)
    return list(modules()) if callable(modules) else [metric]


@contextmanager
def _of_this_process(metric: Any) -> Iterator[None]:
    """Keep a metric of torchmetrics from waiting for other processes, which do not compute it."""
    name = "distributed_available_fn"
    synced = [(part, getattr(part, name)) for part in _parts_of(metric) if hasattr(part, name)]
    try:
        for part, _ in synced:
            setattr(part, name, lambda: False)
        yield
    finally:
        for part, previous in synced:
            setattr(part, name, previous)
