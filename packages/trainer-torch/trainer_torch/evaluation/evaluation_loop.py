"""Evaluation: runs a model on batches and computes metrics, without training it."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from trainer_torch.data.batch_size import LoadedSizes
from trainer_torch.data.batches import describe, map_leaves
from trainer_torch.data.joining import to_cpu
from trainer_torch.data.metrics import (
    AllBatches,
    BatchOutputs,
    ComputeMetrics,
    EachBatch,
    EvalPrediction,
    detached,
    without_prefix,
    works_by_batch,
)
from trainer_torch.data.outputs import plain_number
from trainer_torch.evaluation.sharded_evaluation import in_step
from trainer_torch.evaluation.summary import Seen, speed_metrics, sum_known
from trainer_torch.overrides import call
from trainer_torch.ranks.signals import workers_starting
from trainer_torch.run.training_run import TrainingRun


class EvalLoopOutput(NamedTuple):
    """The result of `Trainer.evaluation_loop`.

    Attributes:
        predictions: As in `EvalPrediction`. `None` in all processes but the main one, and if they
            were not kept.
        label_ids: The labels, in the same form.
        metrics: The metrics by name, with the prefix.
        num_samples: The number of samples; `None` if it is unknown.
    """

    predictions: Any
    label_ids: Any
    metrics: dict[str, float]
    num_samples: int | None


class PredictionOutput(NamedTuple):
    """The result of `Trainer.predict`: predictions, labels and metrics.

    Attributes:
        predictions: As in `EvalPrediction`. With several processes, the main one has those of all
            of them, and the others have `None`.
        label_ids: The labels, in the same form.
        metrics: The metrics by name, in all processes.
    """

    predictions: Any
    label_ids: Any
    metrics: dict[str, float]


class EvaluationHooks(Protocol):
    """What an evaluation calls and a subclass of Trainer may override."""

    compute_metrics: ComputeMetrics | None
    preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Return the loss, predictions and labels of a batch; `None` for what is missing."""

    def get_batch_size(self, batch: Any, loaded: int | None) -> int | None:
        """Return the number of samples in a batch, or `None` if it is unknown."""


@dataclass
class _Receiver:
    """What the main process does with the outputs of all batches.

    Attributes:
        compute_metrics: Computes further metrics, if there are labels.
        prefix: The prefix of the metrics, which their names may have already.
        all_batches: Keeps the outputs, if that is wanted.
        each_batch: Passes them to `compute_metrics`, if that takes them batch by batch.
        evaluated: What was kept, joined by `metrics`.
    """

    compute_metrics: ComputeMetrics | None
    prefix: str
    all_batches: AllBatches | None = None
    each_batch: EachBatch | None = None
    evaluated: EvalPrediction = EvalPrediction(None, None)  # noqa: RUF009

    def receive(self, outputs: BatchOutputs | None) -> None:
        """Take in the next batch of the data; nothing for `None`."""
        if outputs is None:
            return
        if self.all_batches is not None:
            self.all_batches.add(outputs)
        if self.each_batch is not None:
            self.each_batch.add(outputs)

    def metrics(self) -> dict[str, Any]:
        """Return the computed metrics without prefix; none if nothing computes them."""
        if self.all_batches is not None:
            self.evaluated = self.all_batches.joined()
        computed: Any = {}
        if self.each_batch is not None:
            computed = self.each_batch.result()
        elif callable(self.compute_metrics) and self.evaluated.label_ids is not None:
            computed = self.compute_metrics(self.evaluated)
        named = without_prefix(self.prefix, computed)
        return {name: plain_number(name, value) for name, value in named.items()}


def run_evaluation(
    run: TrainingRun,
    dataloader: Iterable[Any],
    hooks: EvaluationHooks,
    prefix: str,
    *,
    loss_only: bool = False,
    keep_all: bool = False,
    ignore_keys: list[str] | None = None,
) -> EvalLoopOutput:
    """Evaluate the model of `run`.

    The main process receives the outputs of all ranks batch by batch, in the order of the data. It
    computes the metrics and shares them, so that ranks never diverge in what they decide by them.

    Args:
        run: The training, with the model.
        dataloader: The batches of this rank.
        hooks: The overridable parts of the Trainer.
        prefix: Put before the name of each metric that does not have it yet, with an underscore.
        loss_only: Compute no predictions and no metrics of them.
        keep_all: Keep and return all predictions even if the metrics are computed batch by batch.
        ignore_keys: Names of outputs that are not predictions.

    Returns:
        The predictions, the labels, the metrics and the number of samples. The metrics are the mean
        loss over the samples as `loss`, those of `compute_metrics`, `runtime` in seconds,
        `samples_per_second` and `steps_per_second`.

    Raises:
        RuntimeError: The metrics could not be computed in the main process, which raises why.
        TypeError: `compute_metrics` returns no mapping, or a value in it is not a single number.
        ValueError: There is no batch on any rank; the number of samples in the batches, by which
            losses are weighted, is unknown; or the predictions cannot be joined.
    """
    start_time = time.perf_counter()
    args, world = run.args, run.world
    compute_metrics = None if loss_only else hooks.compute_metrics
    receiver, seen = _Receiver(compute_metrics, prefix), Seen()
    if compute_metrics is not None and works_by_batch(compute_metrics, args):
        receiver.each_batch = EachBatch(compute_metrics, args.device)
    if keep_all or (receiver.each_batch is None and not loss_only):
        receiver.all_batches = AllBatches(args.eval_do_concat_batches)
    world.share_buffers(run.model)
    with evaluation_mode(run.model):
        move = detached if receiver.all_batches is None and world.size == 1 else to_cpu
        outputs = _outputs(run, dataloader, hooks, seen, loss_only, ignore_keys, move)
        if loss_only:
            deque(outputs, maxlen=0)
        else:
            world.pass_to_main(outputs, receiver.receive)
    seen, steps = seen.of_all_ranks(world)
    metrics: dict[str, Any] = seen.mean_loss()
    _warn_of_loss(run, f"{prefix}_loss", metrics.get("loss", 0.0))
    metrics |= world.on_main(receiver.metrics)
    _warn_of_missing_metrics(run, seen, hooks.compute_metrics, loss_only)
    metrics |= world.gather(speed_metrics(start_time, seen.sizes, steps, run.warn_once))[0]
    named = {f"{prefix}_{name}": value for name, value in metrics.items()}
    evaluated = receiver.evaluated
    return EvalLoopOutput(evaluated.predictions, evaluated.label_ids, named, sum_known(seen.sizes))


def _outputs(
    run: TrainingRun,
    dataloader: Iterable[Any],
    hooks: EvaluationHooks,
    seen: Seen,
    loss_only: bool,
    ignore_keys: list[str] | None,
    move: Callable[[Any], Any],
) -> Iterator[BatchOutputs | None]:
    """Run the model on each batch. Note the batch in `seen`, and yield its outputs after `move`.

    For a batch that does not count in this process, yield `None`.
    """
    included, sizes = run.args.include_for_metrics, LoadedSizes(dataloader)
    with workers_starting(dataloader):
        batches = iter(dataloader)
    for index, (batch, counts) in enumerate(in_step(run, batches)):
        if not counts:
            call(hooks.prediction_step, run.model, batch, True, ignore_keys=ignore_keys)
            yield None
            continue
        seen.batch = seen.batch or describe(batch)
        size = hooks.get_batch_size(batch, sizes.of(index))
        inputs = _inputs_of(batch, run.model) if "inputs" in included else None
        step = call(hooks.prediction_step, run.model, batch, loss_only, ignore_keys=ignore_keys)
        loss, predictions, labels = _checked(step)
        seen.add(size, loss)
        if loss_only:
            run.fire(run.callback_handler.on_prediction_step)
            yield BatchOutputs(size)
            continue
        seen.has_labels = seen.has_labels or labels is not None
        if hooks.preprocess_logits_for_metrics is not None and predictions is not None:
            predictions = hooks.preprocess_logits_for_metrics(predictions, labels)
        run.fire(run.callback_handler.on_prediction_step)
        number = float(loss) if "loss" in included and loss is not None else None
        predictions, labels, inputs = move((predictions, labels, inputs))
        yield BatchOutputs(size, predictions, labels, inputs, number)


def _checked(step: Any) -> tuple[Any, Any, Any]:
    """Return what `prediction_step` returned, after checking that its loss is one number."""
    if not isinstance(step, (tuple, list)) or len(step) != 3:
        raise ValueError(
            f"prediction_step returned {describe(step)}, but must return a tuple of the loss, the "
            "predictions and the labels of the batch. Each may be None."
        )
    loss, predictions, labels = step
    if isinstance(loss, Tensor):
        if loss.numel() != 1:
            raise ValueError(
                f"prediction_step returned a loss of shape {tuple(loss.shape)}, not one number. "
                "Return the mean."
            )
        loss = loss.detach()
    map_leaves(_refuse_iterator, (predictions, labels))
    return loss, predictions, labels


def _refuse_iterator(value: Any) -> Any:
    """Return `value`, unless it is an iterator, such as a generator, whose items are not known."""
    if isinstance(value, Iterator):
        raise ValueError(
            f"prediction_step returned a {type(value).__name__} among the predictions or labels. "
            "It can be gone through once, and its items are not known. Return a tensor or a list."
        )
    return value


def _inputs_of(batch: Any, model: nn.Module) -> Any:
    """Return the main input in `batch`; or all of it, if it has no item of that name."""
    name = getattr(model, "main_input_name", "input_ids")
    return batch[name] if isinstance(batch, Mapping) and name in batch else batch


def _warn_of_loss(run: TrainingRun, name: str, loss: float) -> None:
    """Warn of the first loss that is not finite, unless that of a training step was not either."""
    if not math.isfinite(loss) and run.guard.steps == 0:
        run.warn_once(
            f"{name} is {loss} at step {run.state.global_step}. on_non_finite is about the steps "
            "of the training, and does nothing about evaluations.",
            about="the loss of an evaluation that is not finite",
        )


def _warn_of_missing_metrics(
    run: TrainingRun, seen: Seen, compute_metrics: ComputeMetrics | None, loss_only: bool
) -> None:
    if compute_metrics is not None and loss_only:
        run.warn_once("compute_metrics is not called, because prediction_loss_only is set.")
    elif compute_metrics is not None and not seen.has_labels:
        run.warn_once(
            "compute_metrics is not called, because there are no labels in the batches: the first "
            f"one is {seen.batch}. If one of these holds the labels, name it in label_names."
        )
    elif loss_only and seen.losses[0] is None:
        run.warn_once(
            "The evaluation reports only its speed, because there is no loss for its batches. The "
            f"first one is {seen.batch}. Return the loss in evaluations too."
        )


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
