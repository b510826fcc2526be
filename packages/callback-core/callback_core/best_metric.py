"""The metric that decides which model and which checkpoint of a training is best."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from callback_core._json import scalar
from callback_core.arguments import CallbackArguments, best_metric_key, missing_metric
from callback_core.state import TrainerState


def deciding_metric(args: CallbackArguments, metrics: Mapping[str, Any]) -> float | None:
    """Return the metric that decides which model is best, or `None` if the arguments name none.

    Args:
        args: Provides `metric_for_best_model`.
        metrics: The metrics of an evaluation.

    Raises:
        TypeError: `metrics` is not a mapping, or that metric is not a number.
        ValueError: That metric is missing.
    """
    if args.metric_for_best_model is None:
        return None
    key = best_metric_key(args.metric_for_best_model)
    if not isinstance(metrics, Mapping):
        raise TypeError(
            f"evaluate returned {metrics!r}, but metric_for_best_model needs metrics by "
            f"name. Return a dict with {key!r}."
        )
    if key not in metrics:
        raise missing_metric(args.metric_for_best_model, metrics)
    value = metrics[key]
    try:
        number = value if isinstance(value, Real) else scalar(value)
    except TypeError as error:
        raise TypeError(
            f"{key} is {value!r}, but the metric that metric_for_best_model names must be a "
            f"number: {error}."
        ) from None
    return float(number)


def update_best_metric(args: CallbackArguments, state: TrainerState, value: float) -> bool:
    """Record the deciding metric of an evaluation in `state`, and return whether it is the best.

    NaN is never the best. The user's own evaluation may have logged nothing. Then this adds the
    metric to the log history, because the history decides which checkpoint is the best.
    """
    if value != value:
        return False
    key = best_metric_key(str(args.metric_for_best_model))
    if _logged_metric(state, key, state.global_step) != value:
        epoch = {} if state.epoch is None else {"epoch": state.epoch}
        state.log_history.append({key: value, **epoch, "step": state.global_step})
    is_best = _is_better(args, value, state.best_metric)
    if is_best:
        state.best_metric, state.best_global_step = value, state.global_step
    return is_best


def is_best_checkpoint(
    args: CallbackArguments, state: TrainerState, best_step: int | None = None
) -> bool:
    """Return whether a checkpoint of the current step is better than the best one so far.

    The model may be evaluated before or after the checkpoint is saved. The best evaluation may also
    fall between two checkpoints. transformers then has no best checkpoint at all. Here, the best
    checkpoint is the best of those at which the model was evaluated.

    Args:
        args: Provides the name of the metric.
        state: The state of the training.
        best_step: The step of the best checkpoint so far; by default, the one in its name.
    """
    if args.metric_for_best_model is None:
        return False
    key = best_metric_key(args.metric_for_best_model)
    value = _logged_metric(state, key, state.global_step)
    best = state.best_model_checkpoint
    if best_step is None and best is not None:
        number = Path(best).name.rpartition("-")[2]
        best_step = int(number) if number.isdecimal() else None
    best_value = None if best_step is None else _logged_metric(state, key, best_step)
    return value is not None and _is_better(args, value, best_value)


def _is_better(args: CallbackArguments, value: float, best: float | None) -> bool:
    return best is None or (value > best if args.greater_is_better else value < best)


def _logged_metric(state: TrainerState, key: str, step: int) -> float | None:
    """Return the value last logged as `key` at `step`, unless it is NaN.

    The log history is the only place in the state that has the metric of the best checkpoint after
    a kill: `best_metric` may belong to a later evaluation that was not saved. The history also has
    the metric of the current step after resuming between its evaluation and a second save.
    """
    for entry in reversed(state.log_history):
        if entry["step"] < step:
            break
        if entry["step"] == step and key in entry and entry[key] == entry[key]:
            return float(entry[key])
    return None
