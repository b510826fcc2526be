"""Which arguments go together, and what follows from one for another."""

from __future__ import annotations

import math
from typing import Any, Final

from callback_core import IntervalStrategy, is_greater_better
from trainer_torch.arguments.argument_values import BEST
from trainer_torch.optimizers.schedules import needs_metric

_OF_WORKERS: Final = (
    "dataloader_persistent_workers",
    "dataloader_prefetch_factor",
    "dataloader_multiprocessing_context",
)
"""The arguments that need processes that load data."""


def settle_combinations(args: Any) -> None:
    """Check arguments against each other, and fill in what follows from others.

    Args:
        args: The arguments. Each is allowed by itself.

    Raises:
        ValueError: Arguments do not go together. The message names them and says what to do.
    """
    args.do_eval = bool(args.do_eval) or args.eval_strategy != IntervalStrategy.NO
    if args.eval_steps is None and args.eval_strategy == IntervalStrategy.STEPS:
        args.eval_steps = args.logging_steps
    if args.max_steps == -1 and args.num_train_epochs == 0:
        raise ValueError("num_train_epochs is 0, but must be greater.")
    _check_schedule(args)
    _check_loading(args)
    _check_rollback(args)
    _check_saving(args)
    if args.load_best_model_at_end:
        _check_best_model(args)
    if args.load_best_model_at_end or needs_metric(args.lr_scheduler_type):
        args.metric_for_best_model = args.metric_for_best_model or "loss"
    if args.greater_is_better is None and args.metric_for_best_model is not None:
        args.greater_is_better = is_greater_better(args.metric_for_best_model)


def _check_schedule(args: Any) -> None:
    if needs_metric(args.lr_scheduler_type) and args.eval_strategy == IntervalStrategy.NO:
        raise ValueError(
            f"lr_scheduler_type is {args.lr_scheduler_type!r}, which follows a metric of "
            "evaluations, but eval_strategy is 'no'. Set it to 'steps' or 'epoch'."
        )


def _check_loading(args: Any) -> None:
    for name in _OF_WORKERS:
        if getattr(args, name) and args.dataloader_num_workers == 0:
            raise ValueError(
                f"{name} is {getattr(args, name)!r}, but there are no processes that load "
                "data. Set dataloader_num_workers, or leave it out."
            )


def _check_rollback(args: Any) -> None:
    if args.on_non_finite == "rollback":
        if args.save_strategy == IntervalStrategy.NO:
            raise ValueError(
                "on_non_finite='rollback' needs checkpoints to go back to, but save_strategy "
                "is 'no'."
            )
        if args.save_only_model:
            raise ValueError(
                "on_non_finite='rollback' needs the optimizer in checkpoints, but "
                "save_only_model is True."
            )


def _check_saving(args: Any) -> None:
    if args.save_strategy == BEST:
        if args.eval_strategy == IntervalStrategy.NO:
            raise ValueError(
                "save_strategy='best' saves after an evaluation, but eval_strategy is 'no'. "
                "Set it to 'steps' or 'epoch'."
            )
        if args.metric_for_best_model is None and not args.load_best_model_at_end:
            raise ValueError(
                "save_strategy='best' needs metric_for_best_model, for example 'loss'."
            )


def _check_best_model(args: Any) -> None:
    if args.eval_strategy == IntervalStrategy.NO:
        raise ValueError(
            "load_best_model_at_end needs evaluations to find the best model, but "
            "eval_strategy is 'no'. Set it and save_strategy to 'steps' or 'epoch'."
        )
    if args.save_strategy not in (args.eval_strategy, BEST):
        raise ValueError(
            "load_best_model_at_end needs a checkpoint at every evaluation, but eval_strategy "
            f"is {args.eval_strategy!r} and save_strategy {args.save_strategy!r}. Set both to "
            "the same value."
        )
    if args.save_strategy == IntervalStrategy.STEPS and not _is_multiple(
        args.save_steps, args.eval_steps
    ):
        raise ValueError(
            "load_best_model_at_end needs an evaluation at every checkpoint, but save_steps "
            f"({args.save_steps}) is not a multiple of eval_steps ({args.eval_steps})."
        )


def _is_multiple(steps: float, of: float | None) -> bool:
    """Return whether `steps` is a multiple of `of`. Both may be fractions, with rounding errors."""
    if of is None:
        return False
    ratio = steps / of
    return (steps < 1) == (of < 1) and math.isclose(ratio, round(ratio)) and round(ratio) >= 1
