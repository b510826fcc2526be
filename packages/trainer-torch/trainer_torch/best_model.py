"""Which model is best: the metric that decides, and the checkpoint that holds it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from callback_core import TrainerState, best_metric_key
from trainer_torch.checkpoint import checkpoint_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trainer_torch.arguments import TrainingArguments


def deciding_metric(args: TrainingArguments, metrics: Mapping[str, float]) -> float | None:
    """Return the metric that decides which model is best; `None` where none does.

    Args:
        args: Names the metric.
        metrics: What an evaluation reports.

    Raises:
        KeyError: The evaluation does not report that metric; the message names those that it does.
    """
    if args.metric_for_best_model is None:
        return None
    key = best_metric_key(args.metric_for_best_model)
    if key not in metrics:
        raise KeyError(
            f"metric_for_best_model is {args.metric_for_best_model!r}, but the evaluation reports "
            f"no {key!r}. It reports: {', '.join(metrics)}. Choose one of them, or return {key!r} "
            "from compute_metrics."
        )
    return metrics[key]


def note_evaluation(args: TrainingArguments, state: TrainerState, value: float) -> None:
    """Keep the deciding metric's `value` in `state` where it is the best so far. NaN never is."""
    if value == value and _is_better(args, value, state.best_metric):
        state.best_metric, state.best_global_step = value, state.global_step


def note_checkpoint(args: TrainingArguments, state: TrainerState, checkpoint: Path) -> None:
    """Keep the checkpoint that is about to be saved in `state` where it is the best one.

    The best evaluation may fall between two checkpoints. transformers then has no best checkpoint
    at all; here the best of the evaluated checkpoints is taken.
    """
    if args.metric_for_best_model is None:
        return
    key = best_metric_key(args.metric_for_best_model)
    value = _logged(state, key, state.global_step)
    best = state.best_model_checkpoint
    best_value = None if best is None else _logged(state, key, checkpoint_step(best))
    if value is not None and _is_better(args, value, best_value):
        state.best_model_checkpoint = str(checkpoint)


def _is_better(args: TrainingArguments, value: float, best: float | None) -> bool:
    return best is None or (value > best if args.greater_is_better else value < best)


def _logged(state: TrainerState, key: str, step: int) -> float | None:
    """Return what was last logged as `key` at `step`, unless it is NaN."""
    for entry in reversed(state.log_history):
        if entry["step"] < step:
            break
        if entry["step"] == step and key in entry and entry[key] == entry[key]:
            return float(entry[key])
    return None
