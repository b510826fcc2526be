"""What a callback may read from `args`, whichever trainer made them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from enum import StrEnum
from numbers import Real
from typing import Any, Protocol

from callback_core.spelling import nearest_name


class IntervalStrategy(StrEnum):
    """How often the loop logs, evaluates or saves.

    A member equals its plain string, and the member of transformers' enum with the same value.
    """

    NO = "no"
    STEPS = "steps"
    EPOCH = "epoch"


class CallbackArguments(Protocol):
    """The arguments that callbacks rely on, under transformers' names."""

    @property
    def output_dir(self) -> str | None:
        """The directory to which the run writes."""

    @property
    def run_name(self) -> str | None:
        """The name of the run, for trackers."""

    @property
    def logging_strategy(self) -> str:
        """When the loop logs: an `IntervalStrategy` or its string."""

    @property
    def logging_first_step(self) -> bool:
        """Whether the first update step is logged, whatever the strategy."""

    @property
    def eval_strategy(self) -> str:
        """When the loop evaluates: an `IntervalStrategy` or its string."""

    @property
    def eval_delay(self) -> float:
        """Steps or epochs, as `eval_strategy` counts, before the first evaluation."""

    @property
    def save_strategy(self) -> str:
        """When the loop saves: an `IntervalStrategy` or its string."""

    @property
    def load_best_model_at_end(self) -> bool:
        """Whether the best checkpoint is loaded when training ends."""

    @property
    def metric_for_best_model(self) -> str | None:
        """The metric that decides which model is best, with or without its prefix `eval_`."""

    @property
    def greater_is_better(self) -> bool | None:
        """Whether a greater value of that metric is better."""

    def to_dict(self) -> dict[str, Any]:
        """Return all arguments as plain values."""

    def to_json_string(self) -> str:
        """Return all arguments as indented JSON."""


def is_number(value: object) -> bool:
    """Return whether `value` is a finite number, and not a truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def best_metric_key(metric_for_best_model: str) -> str:
    """Return the key under which an evaluation reports `metric_for_best_model`."""
    return (
        metric_for_best_model
        if metric_for_best_model.startswith("eval_")
        else f"eval_{metric_for_best_model}"
    )


def is_greater_better(metric_for_best_model: str) -> bool:
    """Return whether a greater metric is better by default. The rule is that of transformers."""
    return not metric_for_best_model.endswith("loss")


def evaluation_strategy(args: CallbackArguments) -> str:
    """Return `args.eval_strategy`, which transformers before 4.41 calls `evaluation_strategy`."""
    older: Any = args
    found: str = args.eval_strategy if hasattr(args, "eval_strategy") else older.evaluation_strategy
    return found


def output_directory(args: CallbackArguments) -> str:
    """Return the absolute path of `args.output_dir`, in which `~` is the home directory.

    Without one, it is the working directory.
    """
    return os.path.abspath(os.path.expanduser(args.output_dir or "."))


def share_of_steps(share: float, steps: int) -> int:
    """Return how many steps `share` of all `steps` are, rounded up.

    A share that means a whole number of steps is exactly that number: 0.07 of 100 is 7, although
    the product of the two floats is greater than 7.
    """
    product = share * steps
    nearest = round(product)
    return nearest if math.isclose(product, nearest, rel_tol=1e-9) else math.ceil(product)


def missing_metric(metric_for_best_model: str, reported: Iterable[str]) -> ValueError:
    """Return the error that says that evaluations never report `metric_for_best_model`.

    Args:
        metric_for_best_model: The argument.
        reported: The names of the metrics that evaluations report.
    """
    key, names = best_metric_key(metric_for_best_model), sorted(reported)
    nearest = nearest_name(key, [name for name in names if name.startswith("eval_")])
    hint = f" Did you mean {nearest!r}?" if nearest else ""
    return ValueError(
        f"metric_for_best_model is {metric_for_best_model!r}, but no evaluation reports {key!r}."
        f"{hint} They report: {', '.join(names)}. Choose one of them, or return "
        f"{key.removeprefix('eval_')!r} from compute_metrics."
    )
