"""`EvaluationMethods`: the methods of the Trainer that evaluate and predict."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from callback_core import IntervalStrategy
from trainer_torch.arguments.verbosity import at_log_level
from trainer_torch.data import batches, outputs
from trainer_torch.data.batch_size import count_samples
from trainer_torch.data.data_loaders import EvalLoaders, check_loader, eval_dataloader
from trainer_torch.data.metrics import ComputeMetrics
from trainer_torch.evaluation.evaluation_loop import (
    EvalLoopOutput,
    PredictionOutput,
    run_evaluation,
)
from trainer_torch.evaluation.summary import speed_metrics
from trainer_torch.methods.losses import LossMethods
from trainer_torch.overrides import call
from trainer_torch.ranks.world import watched


class EvaluationMethods(LossMethods):
    """Evaluates and predicts.

    Attributes:
        data_collator: Makes a batch from a list of samples.
        eval_dataset: The data that `evaluate` uses, or several datasets by name.
        compute_metrics: Computes metrics of predictions and labels.
        preprocess_logits_for_metrics: Called with the predictions and the labels of each batch, on
            the device. Returns what to keep of the predictions.
    """

    data_collator: Callable[[list[Any]], Any] | None
    eval_dataset: Dataset[Any] | Mapping[str, Dataset[Any]] | None
    compute_metrics: ComputeMetrics | None
    preprocess_logits_for_metrics: Callable[[Any, Any], Any] | None
    _eval_loaders: EvalLoaders

    def log(self, logs: dict[str, Any]) -> None:
        """Add `logs` to the history of the state and fire `on_log`."""
        raise NotImplementedError

    @at_log_level
    @watched
    def evaluate(
        self,
        eval_dataset: Dataset[Any] | Mapping[str, Dataset[Any]] | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Evaluate, log the metrics and return them. They are the same in all processes.

        Args:
            eval_dataset: The data to use instead of the trainer's own, or the name of one of its
                own. For each dataset in a mapping, its name precedes the names of the metrics.
            ignore_keys: Names of outputs that are not predictions. By default, those that the
                `config` of the model names.
            metric_key_prefix: Put before the name of each metric, with an underscore.

        Raises:
            ValueError: There is no dataset, or none of that name, or it is empty.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, Mapping):
            return self._evaluate_each(dataset, ignore_keys, metric_key_prefix)
        output = self._measured_loop(
            self.get_eval_dataloader(dataset),
            "Evaluation",
            prediction_loss_only=True if self.compute_metrics is None else None,
            ignore_keys=ignore_keys,
            metric_key_prefix=metric_key_prefix,
        )
        self.log(output.metrics)
        self.run.fire(self.run.callback_handler.on_evaluate, metrics=output.metrics)
        return output.metrics

    @at_log_level
    @watched
    def predict(
        self,
        test_dataset: Dataset[Any],
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "test",
    ) -> PredictionOutput:
        """Return the predictions for `test_dataset`, its labels and its metrics. Logs nothing.

        With several processes, the main process returns the predictions and the labels of all of
        them, and the others return `None` for both. All return the metrics.

        Args:
            test_dataset: The data.
            ignore_keys: As in `evaluate`.
            metric_key_prefix: As in `evaluate`.
        """
        output = self._measured_loop(
            self.get_test_dataloader(test_dataset),
            "Prediction",
            ignore_keys=ignore_keys,
            metric_key_prefix=metric_key_prefix,
        )
        self.run.fire(self.run.callback_handler.on_predict, metrics=output.metrics)
        return PredictionOutput(output.predictions, output.label_ids, output.metrics)

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Run the model on the batches of `dataloader`, and compute the metrics.

        `evaluate` and `predict` call this. An override returns an object with the attributes of
        `EvalLoopOutput`. It must return the same metrics in all processes.

        Args:
            dataloader: The batches of this process.
            description: `Evaluation` or `Prediction`. In a prediction, all predictions are kept,
                also with `batch_eval_metrics`.
            prediction_loss_only: Compute the loss only. By default, the argument of that name.
            ignore_keys: As in `evaluate`.
            metric_key_prefix: As in `evaluate`.
        """
        args = self.run.args
        if prediction_loss_only is None:
            prediction_loss_only = args.prediction_loss_only
        return run_evaluation(
            self.run,
            dataloader,
            self,
            metric_key_prefix,
            loss_only=prediction_loss_only,
            keep_all=description == "Prediction" and not prediction_loss_only,
            ignore_keys=ignore_keys,
        )

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Return the loss, predictions and labels of a batch; `None` for what is missing.

        As in transformers, there is no loss for a batch without labels if `compute_loss_func`, or a
        `compute_loss` that raises a `KeyError` for them, needs labels. The predictions are then
        what `forward` of the model returns.

        Args:
            model: The model, in evaluation mode.
            inputs: The batch.
            prediction_loss_only: Return the loss only.
            ignore_keys: As in `evaluate`.
        """
        moved = self._prepare_inputs(inputs)
        labels = batches.labels_of(moved, self.run.args.label_names)
        with torch.no_grad(), self.compute_loss_context_manager():
            if labels is None:
                output = self._output_without_labels(model, inputs)
            else:
                output = self._loss_and_outputs(model, inputs, moved)
        ignored = outputs.ignored_outputs(model) if ignore_keys is None else ignore_keys
        loss, predictions = outputs.split_output(output, ignored)
        return (loss, None, None) if prediction_loss_only else (loss, predictions, labels)

    def get_batch_size(self, batch: Any, loaded: int | None) -> int | None:
        """Return the number of samples in a batch, or `None` if it is unknown.

        Args:
            batch: A batch.
            loaded: How many samples its loader put into it, if that is known.
        """
        return count_samples(batch, loaded, self.run.args.label_names)

    def get_eval_dataloader(
        self, eval_dataset: Dataset[Any] | str | None = None
    ) -> DataLoader[Any]:
        """Return the loader of this process's batches to evaluate.

        Args:
            eval_dataset: The data to use instead of the trainer's own, or the name of one of its
                own.

        Raises:
            ValueError: There is no dataset, or none of that name.
        """
        dataset: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError(
                "There is no data to evaluate on: pass eval_dataset to evaluate or to the Trainer."
            )
        if isinstance(dataset, str):
            own = self.eval_dataset if isinstance(self.eval_dataset, Mapping) else {}
            if dataset not in own:
                names = ", ".join(map(repr, own)) or "none, because it is not a mapping"
                raise ValueError(
                    f"There is no evaluation dataset {dataset!r}. The names in the eval_dataset of "
                    f"the Trainer are: {names}."
                )
            dataset = own[dataset]
        parts = self.eval_dataset, self._collator(), self.run.args, self.run.world
        return self._eval_loaders.get(dataset, *parts)

    def get_test_dataloader(self, test_dataset: Dataset[Any]) -> DataLoader[Any]:
        """Return the loader of this process's batches of `test_dataset`, to predict."""
        return eval_dataloader(test_dataset, self._collator(), self.run.args, self.run.world)

    def _loss_and_outputs(self, model: nn.Module, inputs: Any, moved: Any) -> Any:
        """Return the loss and the outputs for `inputs`, which are `moved` to the device.

        As in transformers, `num_items_in_batch` is that of the batch.
        """
        items = None
        if self.scales_loss:
            items = self.count_items(inputs, self.get_batch_size(inputs, None))
        return call(self.compute_loss, model, moved, return_outputs=True, num_items_in_batch=items)

    def _output_without_labels(self, model: nn.Module, inputs: Any) -> Any:
        """Return the output for a batch without labels: with a loss unless that needs labels."""
        if self.compute_loss_func is None:
            try:
                return self._loss_and_outputs(model, inputs, self._prepare_inputs(inputs))
            except KeyError as error:
                if not set(error.args).intersection(self.run.args.label_names or ["labels"]):
                    raise
        return batches.forward(model, self._prepare_inputs(inputs))

    def _computes_metrics(self) -> bool:
        return self.compute_metrics is not None and not self.run.args.prediction_loss_only

    def _may_report_more_metrics(self) -> bool:
        """Return whether evaluations may report more than their loss and speed."""
        own, base = type(self), EvaluationMethods
        is_overridden = (own.evaluate, own.evaluation_loop) != (base.evaluate, base.evaluation_loop)
        return is_overridden or self._computes_metrics()

    def _loaders_to_check(self) -> list[DataLoader[Any]]:
        """Return the loaders of the evaluations in a training, as far as all of this is our own.

        What a subclass overrides may read data that can be read only once. So may a stream.
        """
        args, own, base = self.run.args, type(self), EvaluationMethods
        names = ("evaluate", "evaluation_loop", "prediction_step", "get_eval_dataloader")
        if args.eval_strategy == IntervalStrategy.NO or any(
            getattr(own, name) is not getattr(base, name) for name in names
        ):
            return []
        datasets = self.eval_dataset
        parts = datasets.values() if isinstance(datasets, Mapping) else [datasets]
        readable = [part for part in parts if not isinstance(part, IterableDataset)]
        return [self.get_eval_dataloader(part) for part in readable]

    def _evaluate_each(
        self, datasets: Mapping[str, Any], ignore_keys: list[str] | None, prefix: str
    ) -> dict[str, float]:
        """Evaluate several datasets. As in transformers, the trainer's own are passed by name."""
        metrics: dict[str, float] = {}
        for name, dataset in datasets.items():
            is_own = datasets is self.eval_dataset and isinstance(name, str)
            part, key = name if is_own else dataset, f"{prefix}_{name}"
            metrics |= call(self.evaluate, part, ignore_keys=ignore_keys, metric_key_prefix=key)
        if not datasets:
            raise ValueError("There is no data to evaluate on: the mapping of datasets is empty.")
        return metrics

    def _measured_loop(
        self, dataloader: DataLoader[Any], description: str, metric_key_prefix: str, **options: Any
    ) -> EvalLoopOutput:
        """Return the result of `evaluation_loop`, with the speed if an override leaves it out."""
        run, start_time = self.run, time.perf_counter()
        check_loader("get_eval_dataloader or get_test_dataloader", dataloader)
        run.callback_handler.eval_dataloader = dataloader
        run.signals.protect_workers(dataloader)
        options["metric_key_prefix"] = metric_key_prefix
        with run.evaluation():
            output = call(self.evaluation_loop, dataloader, description, **options)
        metrics = dict(output.metrics or {})
        if f"{metric_key_prefix}_runtime" not in metrics:
            speed = speed_metrics(start_time, [output.num_samples], None, run.warn_once)
            metrics |= {f"{metric_key_prefix}_{name}": value for name, value in speed.items()}
        return EvalLoopOutput(output.predictions, output.label_ids, metrics, output.num_samples)
