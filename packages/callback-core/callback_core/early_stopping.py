"""`EarlyStoppingCallback`: stops a training that no longer gets better."""

from __future__ import annotations

import logging
from typing import Any

from callback_core.arguments import CallbackArguments, IntervalStrategy, best_metric_key
from callback_core.callback import TrainerCallback
from callback_core.control import TrainerControl, request_stop
from callback_core.state import TrainerState

logger = logging.getLogger(__name__)


class EarlyStoppingCallback(TrainerCallback):
    """Stops training when `metric_for_best_model` has not improved for some evaluations in a row.

    An evaluation improves the metric when it is better than the best so far by more than the
    threshold. NaN is never an improvement.

    Args:
        early_stopping_patience: Stop after so many evaluations in a row without an improvement.
        early_stopping_threshold: By how much, in the metric's own unit, it must get better to
            count.

    Raises:
        ValueError: At construction for a patience below 1 or a negative threshold; when training
            begins without `metric_for_best_model` or without evaluations.
    """

    def __init__(
        self, early_stopping_patience: int = 1, early_stopping_threshold: float | None = 0.0
    ) -> None:
        if early_stopping_patience < 1:
            raise ValueError(
                f"early_stopping_patience is {early_stopping_patience}, it must be at least 1."
            )
        if early_stopping_threshold is not None and early_stopping_threshold < 0:
            raise ValueError(
                f"early_stopping_threshold is {early_stopping_threshold}, it must not be negative."
            )
        self.early_stopping_patience = early_stopping_patience
        self.early_stopping_threshold = early_stopping_threshold or 0.0
        self.early_stopping_patience_counter = 0

    def on_train_begin(
        self, args: CallbackArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that there will be a metric to look at."""
        if args.metric_for_best_model is None:
            raise ValueError(
                "EarlyStoppingCallback has no metric to look at: set metric_for_best_model, for "
                "example to 'loss'."
            )
        if args.eval_strategy == IntervalStrategy.NO:
            raise ValueError(
                "EarlyStoppingCallback never sees a metric: eval_strategy is 'no'. Set it to "
                "'steps' or 'epoch'."
            )
        if not args.load_best_model_at_end:
            logger.warning(
                "EarlyStoppingCallback without load_best_model_at_end=True: the model will be "
                "the last one, which is not the best one."
            )

    def on_evaluate(
        self,
        args: CallbackArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Count this evaluation, and ask to stop when patience is at its end."""
        if args.metric_for_best_model is None:
            return
        key = best_metric_key(args.metric_for_best_model)
        if metrics is None or key not in metrics:
            return
        if self._improves(metrics[key], state.best_metric, bool(args.greater_is_better)):
            self.early_stopping_patience_counter = 0
        else:
            self.early_stopping_patience_counter += 1
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            best = "none" if state.best_metric is None else f"{state.best_metric:.4g}"
            evaluations = self.early_stopping_patience_counter
            request_stop(
                control, f"{key} has not improved for {evaluations} evaluations (best: {best})"
            )

    def _improves(self, value: float, best: float | None, greater_is_better: bool) -> bool:
        if value != value:  # NaN, also where there is no best yet
            return False
        if best is None:
            return True
        gain = value - best if greater_is_better else best - value
        return gain > self.early_stopping_threshold
