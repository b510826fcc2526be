"""`EarlyStoppingCallback`: stops a training that no longer improves."""

from __future__ import annotations

import logging
import math
from typing import Any

from callback_core.arguments import (
    CallbackArguments,
    IntervalStrategy,
    best_metric_key,
    evaluation_strategy,
    is_number,
    missing_metric,
)
from callback_core.callback import TrainerCallback
from callback_core.callbacks.printer import readable_number
from callback_core.control import TrainerControl, request_stop
from callback_core.persistence import ExportableState
from callback_core.state import TrainerState

logger = logging.getLogger(__name__)


class EarlyStoppingCallback(TrainerCallback, ExportableState):
    """Stops training when `metric_for_best_model` has not improved for some evaluations in a row.

    An evaluation improves the metric if it beats the best so far by more than the threshold. NaN
    is never an improvement, and any number improves on NaN. Further evaluations at the same step do
    not use up the patience. The callback keeps the best value itself, so a loop need not set
    `state.best_metric`. A resumed training continues with the count and the best value of its
    checkpoint, and any other starts without them.

    The callback raises an error if the loop's first evaluation shows that no evaluation will report
    the metric. An evaluation that reports `eval_loss` or `eval_runtime` has a single dataset, so
    the error comes at once. With several datasets, any of them may report the metric, so the
    callback waits until the next step or epoch ends. Evaluations that a callback adds, under other
    names, need not report the metric.

    Args:
        early_stopping_patience: Stop after this many evaluations in a row without an improvement.
        early_stopping_threshold: An improvement counts only if it is greater than this, in the
            metric's unit.

    Attributes:
        early_stopping_patience_counter: The number of evaluations since the last improvement.
        best_metric: The best value so far, or `None` before the first one.

    Raises:
        ValueError: At construction: the patience is not a whole number of at least 1, or the
            threshold not a number of at least 0. When training begins: there is no
            `metric_for_best_model`, or no evaluation. At an evaluation, or at the end of the next
            step or epoch: the metric will never be reported.
    """

    def __init__(
        self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0
    ) -> None:
        if not is_number(early_stopping_patience) or not (
            early_stopping_patience >= 1 and early_stopping_patience == int(early_stopping_patience)
        ):
            raise ValueError(
                f"early_stopping_patience is {early_stopping_patience!r}, but must be a whole "
                "number of at least 1."
            )
        if early_stopping_threshold is not None and not (
            is_number(early_stopping_threshold) and early_stopping_threshold >= 0
        ):
            raise ValueError(
                f"early_stopping_threshold is {early_stopping_threshold!r}, but must be a number "
                "of at least 0."
            )
        self.early_stopping_patience = early_stopping_patience
        self.early_stopping_threshold = early_stopping_threshold or 0.0
        self.early_stopping_patience_counter = 0
        self.best_metric: float | None = None
        self._counted_step: int | None = None
        self._has_begun = False
        # The names reported since the last step; None once the metric came.
        self._without_metric: set[str] | None = None
        self._loop_evaluates = False

    def on_train_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that there will be a metric."""
        if args.metric_for_best_model is None:
            raise ValueError(
                "EarlyStoppingCallback needs a metric: set metric_for_best_model, for "
                "example to 'loss'."
            )
        if evaluation_strategy(args) == IntervalStrategy.NO:
            raise ValueError(
                "EarlyStoppingCallback never sees a metric: eval_strategy is 'no'. Set it to "
                "'steps' or 'epoch'."
            )
        if not args.load_best_model_at_end:
            logger.warning(
                "EarlyStoppingCallback without load_best_model_at_end=True keeps the last model, "
                "not the best one."
            )
        if state.global_step == 0:
            self.early_stopping_patience_counter, self.best_metric = 0, None
        elif self.best_metric is None:  # as after resuming from a checkpoint of transformers
            self.best_metric = state.best_metric
        self._counted_step, self._has_begun = None, True
        self._without_metric, self._loop_evaluates = set(), False

    def on_step_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the metric was among those of the last evaluations."""
        self._end_round(args, control)

    def on_epoch_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the metric was among those of the last evaluations."""
        self._end_round(args, control)

    def on_evaluate(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Count this evaluation, and ask to stop if the patience is over."""
        if args.metric_for_best_model is None or metrics is None:
            return
        key = best_metric_key(args.metric_for_best_model)
        value = metrics.get(key)
        if value is None:
            self._note_without_metric(args.metric_for_best_model, metrics)
            return
        self._without_metric = None
        self.check_metric_value(args, state, control, value)
        evaluations = self.early_stopping_patience_counter
        if evaluations >= self.early_stopping_patience:
            best = "none" if self.best_metric is None else readable_number(self.best_metric)
            plural = "s" if evaluations > 1 else ""
            request_stop(
                control,
                f"{key} has not improved for {evaluations} evaluation{plural} (best: {best})",
            )

    def on_train_end(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Accept evaluations without the metric from now on."""
        self._without_metric = None

    def check_metric_value(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        metric_value: float,
    ) -> None:
        """Count an evaluation with this value; an improvement resets the count to 0."""
        if self.best_metric is None and not self._has_begun:
            self.best_metric = state.best_metric
        gain = self._gain(metric_value, bool(args.greater_is_better))
        if gain > self.early_stopping_threshold:
            self.early_stopping_patience_counter = 0
        elif state.global_step == 0 or state.global_step != self._counted_step:
            self.early_stopping_patience_counter += 1
        if gain > 0:
            self.best_metric = metric_value
        self._counted_step = state.global_step

    def state(self) -> dict[str, dict[str, Any]]:
        """Return the constructor's arguments as `args`, and count and best as `attributes`."""
        best = {} if self.best_metric is None else {"best_metric": self.best_metric}
        return {
            "args": {
                "early_stopping_patience": self.early_stopping_patience,
                "early_stopping_threshold": self.early_stopping_threshold,
            },
            "attributes": {
                "early_stopping_patience_counter": self.early_stopping_patience_counter,
                **best,
            },
        }

    def _note_without_metric(self, wanted: str, metrics: dict[str, float]) -> None:
        """Keep the names of `metrics`, which lack the one `wanted`. Raise if no others can come."""
        names = {name for name, value in metrics.items() if value is not None}
        if self._without_metric is None or not any(name.startswith("eval_") for name in names):
            return
        self._without_metric |= names
        if not names.isdisjoint(("eval_loss", "eval_runtime")):
            raise missing_metric(wanted, self._without_metric)

    def _end_round(self, args: CallbackArguments, control: TrainerControl) -> None:
        """Judge the evaluations since the last step, and note whether more follow now."""
        if self._without_metric is None:
            return
        if self._loop_evaluates and self._without_metric and args.metric_for_best_model is not None:
            raise missing_metric(args.metric_for_best_model, self._without_metric)
        self._without_metric, self._loop_evaluates = set(), control.should_evaluate

    def _gain(self, value: float, greater_is_better: bool) -> float:
        """Return by how much `value` is better than the best so far."""
        if value != value:  # NaN, even if there is no best yet
            return -math.inf
        best = self.best_metric
        if best is None or best != best:
            return math.inf
        return value - best if greater_is_better else best - value
