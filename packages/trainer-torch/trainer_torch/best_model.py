"""The best model: the metric that decides, and the checkpoint that holds it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

from callback_core import TrainerState, best_metric_key, missing_metric
from trainer_torch.arguments import TrainingArguments
from trainer_torch.checkpoint import (
    checkpoint_path,
    checkpoint_step,
)
from trainer_torch.finite import is_finite
from trainer_torch.outputs import plain_number
from trainer_torch.run import TrainingRun
from trainer_torch.selection import rotate_checkpoints
from trainer_torch.weights import load_model

logger = logging.getLogger(__name__)


def deciding_metric(args: TrainingArguments, metrics: Mapping[str, float]) -> float | None:
    """Return the metric that decides which model is best, or `None` if the arguments name none.

    Args:
        args: Provides `metric_for_best_model`.
        metrics: The metrics of an evaluation.

    Raises:
        TypeError: It reports no metrics, or something else than one number.
        ValueError: The evaluation does not report that metric.
    """
    if args.metric_for_best_model is None:
        return None
    key = best_metric_key(args.metric_for_best_model)
    if not isinstance(metrics, Mapping):  # of a subclass
        raise TypeError(
            f"evaluate returned {metrics!r}, but metric_for_best_model needs metrics by name. "
            f"Return a dict with {key!r}."
        )
    if key not in metrics:
        raise missing_metric(args.metric_for_best_model, metrics)
    value = plain_number(key, metrics[key])
    if not isinstance(value, Real):
        raise TypeError(
            f"{key} is {value!r}, but metric_for_best_model must be a number, so that the best can "
            "be found."
        )
    return float(value)


def update_best_metric(args: TrainingArguments, state: TrainerState, value: float) -> bool:
    """Record the deciding metric of an evaluation in `state`, and return whether it is the best.

    NaN never is. An overridden `evaluate` may have logged nothing. The history then gets the metric
    here, because it decides which checkpoint is the best.
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


def update_best_checkpoint(run: TrainingRun) -> None:
    """Record the checkpoint of the current step in the state, if it is the best.

    The model may be evaluated before that checkpoint is saved or after it. The best evaluation may
    also fall between two checkpoints. transformers then has no best checkpoint at all; here it is
    the best of the checkpoints at which the model was evaluated. One with weights that are not
    finite is never the best, and a warning says so.
    """
    args, state = run.args, run.state
    if args.metric_for_best_model is None:
        return
    key = best_metric_key(args.metric_for_best_model)
    value = _logged_metric(state, key, state.global_step)
    best = state.best_model_checkpoint
    best_value = None if best is None else _logged_metric(state, key, checkpoint_step(best))
    if value is None or not _is_better(args, value, best_value):
        return
    checkpoint = checkpoint_path(args.output_dir, state.global_step)
    if all(run.world.gather(is_finite(run.model, optimizer=None))):
        state.best_model_checkpoint = str(checkpoint)
    elif run.world.is_main:
        logger.warning(
            "%s has the best %s so far, %s, but its weights are not finite, so it is not the best "
            "checkpoint.",
            checkpoint,
            key,
            value,
        )


def finish_model(run: TrainingRun) -> None:
    """Set the weights with which a training ends: the best ones, if the arguments ask for it.

    From then on, `save_total_limit` treats the newest checkpoint like any other. Callbacks may
    change the weights last.
    """
    best = run.state.best_model_checkpoint if run.args.load_best_model_at_end else None
    if run.args.load_best_model_at_end:
        _load_best_model(run, best)
    for callback in run.loop_callbacks:
        callback.finish(run.model, None if best is None else Path(best))


def _load_best_model(run: TrainingRun, best: str | None) -> None:
    if best is None:
        logger.warning(
            "load_best_model_at_end has no checkpoint to load: none was saved at an evaluation "
            "that reported %r as a number. The model keeps its last weights.",
            run.args.metric_for_best_model,
        )
    else:
        logger.info("Loading the best model from %s.", best)
        load_model(run.model, Path(best))
        rotate_checkpoints(run)


def _is_better(args: TrainingArguments, value: float, best: float | None) -> bool:
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
