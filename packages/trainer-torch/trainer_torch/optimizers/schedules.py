"""Learning rate schedules: the factor of the learning rate at a step, as in transformers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, Final, NamedTuple

from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainer_torch.optimizers.greedy import GreedyLR


class Course(NamedTuple):
    """What a schedule runs over.

    Attributes:
        warmup: The number of update steps in which the rate rises.
        total: The number of all update steps.
        lr: The learning rate that the factor 1 stands for.
    """

    warmup: int
    total: int
    lr: float

    def is_warming_up(self, step: int) -> bool:
        """Return whether `step` is one of the warm-up."""
        return step < self.warmup

    def rise(self, step: int) -> float:
        """Return the part of the warm-up that is done at `step`, from 0 to 1."""
        return step / max(1, self.warmup)

    def progress(self, step: float) -> float:
        """Return the part of the steps after the warm-up that is done at `step`, from 0 to 1."""
        return (step - self.warmup) / max(1, self.total - self.warmup)


def linear(step: int, course: Course) -> float:
    """Rise from 0 during the warm-up, then fall linearly to 0."""
    if course.is_warming_up(step):
        return course.rise(step)
    return max(0.0, (course.total - step) / max(1, course.total - course.warmup))


def cosine(step: int, course: Course, *, num_cycles: float = 0.5) -> float:
    """Rise from 0 during the warm-up, then follow a cosine for `num_cycles` waves.

    Half a wave ends at 0.
    """
    if course.is_warming_up(step):
        return course.rise(step)
    return max(0.0, _wave(2 * num_cycles * course.progress(step)))


def cosine_with_restarts(step: int, course: Course, *, num_cycles: float = 1) -> float:
    """Rise from 0 during the warm-up, then fall to 0 along half a cosine, `num_cycles` times."""
    if course.is_warming_up(step):
        return course.rise(step)
    progress = course.progress(step)
    return 0.0 if progress >= 1 else max(0.0, _wave((num_cycles * progress) % 1.0))


def polynomial(step: int, course: Course, *, lr_end: float = 1e-7, power: float = 1.0) -> float:
    """Rise from 0 during the warm-up, then fall to the rate `lr_end` with a power of the rest."""
    if course.is_warming_up(step):
        return course.rise(step)
    left: float = max(0.0, 1 - course.progress(step)) ** power
    return ((course.lr - lr_end) * left + lr_end) / course.lr


def constant(step: int, course: Course) -> float:
    """Stay at 1. There is no warm-up, even if the arguments ask for one."""
    return 1.0


def constant_with_warmup(step: int, course: Course) -> float:
    """Rise from 0 during the warm-up, then stay at 1."""
    return course.rise(step) if course.is_warming_up(step) else 1.0


def inverse_sqrt(step: int, course: Course, *, timescale: float | None = None) -> float:
    """Rise from 0 during the warm-up, then fall with the square root of the steps.

    After `timescale` more steps, the rate is 1 / sqrt(2). Its default is the warm-up, or 10,000.
    """
    if course.is_warming_up(step):
        return course.rise(step)
    scale = timescale or course.warmup or 10_000
    return 1.0 / math.sqrt((step - course.warmup + scale) / scale)


def cosine_with_min_lr(
    step: int,
    course: Course,
    *,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    num_cycles: float = 0.5,
) -> float:
    """Rise from 0 during the warm-up, then fall to a least rate along half a cosine.

    The least rate is `min_lr`, or `min_lr_rate` times the highest one.
    """
    if course.is_warming_up(step):
        return course.rise(step)
    least = _least_factor(course, min_lr, min_lr_rate)
    return max(0.0, _between(least, _wave(2 * num_cycles * course.progress(step))))


def cosine_warmup_with_min_lr(
    step: int,
    course: Course,
    *,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
    num_cycles: float = 0.5,
) -> float:
    """Do as `cosine_with_min_lr` does, one step earlier: the first step has a rate above 0.

    That rate is `warmup_lr_rate` times the highest one, by default 1 / warm-up.
    """
    if course.is_warming_up(step) and warmup_lr_rate is None:
        return (step + 1) / max(1, course.warmup)
    if course.is_warming_up(step):
        return _between(warmup_lr_rate, step / max(1, course.warmup - 1))
    least = _least_factor(course, min_lr, min_lr_rate)
    return max(0.0, _between(least, _wave(2 * num_cycles * course.progress(step + 1))))


def warmup_stable_decay(
    step: int,
    course: Course,
    *,
    num_decay_steps: int,
    num_stable_steps: int | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0.0,
    num_cycles: float = 0.5,
) -> float:
    """Rise from `min_lr_ratio` during the warm-up, stay at 1, then fall back in `num_decay_steps`.

    The rate stays for `num_stable_steps`, by default until the decay is due to reach the last step.
    """
    if course.is_warming_up(step):
        done = course.rise(step)
        rises = {"linear": done, "cosine": 1 - _wave(done), "1-sqrt": 1 - math.sqrt(1 - done)}
        return max(0.0, _between(min_lr_ratio, rises[warmup_type]))
    if num_stable_steps is None:
        num_stable_steps = course.total - course.warmup - num_decay_steps
    after = step - course.warmup - num_stable_steps
    if after < 0:
        return 1.0
    if after >= num_decay_steps:
        return min_lr_ratio
    done = after / max(1, num_decay_steps)
    falls = {
        "linear": 1 - done,
        "cosine": _wave(2 * num_cycles * done),
        "1-sqrt": 1 - math.sqrt(done),
    }
    return max(0.0, _between(min_lr_ratio, falls[decay_type]))


def _wave(halves: float) -> float:
    """Return a cosine between 1 and 0 after this number of half waves: 1 at 0, and 0 at 1."""
    return 0.5 * (1.0 + math.cos(math.pi * halves))


def _between(least: float | None, part: float) -> float:
    return (least or 0.0) + (1 - (least or 0.0)) * part


def _least_factor(course: Course, min_lr: float | None, min_lr_rate: float | None) -> float:
    return min_lr / course.lr if min_lr is not None else min_lr_rate or 0.0


SCHEDULES: Final[dict[str, Callable[..., Any]]] = {
    "linear": linear,
    "cosine": cosine,
    "cosine_with_restarts": cosine_with_restarts,
    "polynomial": polynomial,
    "constant": constant,
    "constant_with_warmup": constant_with_warmup,
    "inverse_sqrt": inverse_sqrt,
    "reduce_lr_on_plateau": ReduceLROnPlateau,
    "cosine_with_min_lr": cosine_with_min_lr,
    "cosine_warmup_with_min_lr": cosine_warmup_with_min_lr,
    "warmup_stable_decay": warmup_stable_decay,
    "greedy": GreedyLR,
}
"""The values of `lr_scheduler_type`: functions of the step, and schedulers that take a metric.

The keyword-only parameters of a function are what `lr_scheduler_kwargs` may set. For a scheduler,
they are all but the optimizer.
"""

_SHAPES: Final = ("linear", "cosine", "1-sqrt")
_POSITIVE: Final = ("timescale",)
_WHOLE: Final = ("num_decay_steps", "num_stable_steps")


def needs_metric(name: str) -> bool:
    """Return whether the schedule `name` follows the metric of evaluations, and not the steps."""
    return isinstance(SCHEDULES[name], type)


def has_warmup(name: str) -> bool:
    """Return whether the schedule `name` has a warm-up."""
    return not needs_metric(name) and name != "constant"


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Check what `lr_scheduler_kwargs` has for the schedule `name`, as far as it is known alone.

    Raises:
        ValueError: An option is unknown, missing or of a wrong kind. The message names those that
            the schedule takes.
    """
    parameters = list(inspect.signature(SCHEDULES[name]).parameters.values())
    taken = {one.name: one.default for one in parameters[1 if needs_metric(name) else 2 :]}
    listed = ", ".join(taken) or "none"
    for option, value in options.items():
        if option not in taken:
            raise ValueError(
                f"lr_scheduler_kwargs has {option!r}, but {name!r} takes these: {listed}."
            )
        if not needs_metric(name):
            _check_value(option, value, taken[option])
    missing = [one for one, default in taken.items() if default is inspect.Parameter.empty]
    missing = [one for one in missing if one not in options]
    if missing:
        raise ValueError(
            f"lr_scheduler_kwargs lacks {missing[0]!r}, which {name!r} needs. It takes: {listed}."
        )
    if "min_lr_rate" in taken:
        given = [one for one in ("min_lr", "min_lr_rate") if options.get(one) is not None]
        if len(given) != 1:
            raise ValueError(
                f"lr_scheduler_kwargs has {' and '.join(given) or 'no least rate'}, but {name!r} "
                f"needs one of min_lr and min_lr_rate. It takes: {listed}."
            )


def check_rate(name: str, options: Mapping[str, Any], lr: float) -> None:
    """Check that the options of the schedule `name` fit a highest learning rate of `lr`.

    Raises:
        ValueError: It must be higher.
    """
    if name == "polynomial":
        lowest = options.get("lr_end", 1e-7)
        if lowest >= lr:
            raise ValueError(
                f"The schedule 'polynomial' falls to lr_end, {lowest}, which must be below the "
                f"learning rate, {lr}. Set it in lr_scheduler_kwargs."
            )
    elif options.get("min_lr") is not None and not needs_metric(name) and lr <= 0:
        raise ValueError(f"The schedule {name!r} needs a learning rate above 0, but it is {lr}.")


def _check_value(option: str, value: Any, default: Any) -> None:
    if value is None and default is None:
        return
    if isinstance(default, str):
        if value not in _SHAPES:
            raise ValueError(
                f"{option} in lr_scheduler_kwargs is {value!r}, but must be one of: "
                f"{', '.join(_SHAPES)}."
            )
        return
    is_number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    is_fraction = is_number and option in _WHOLE and value != int(value)
    if not is_number or is_fraction or value < 0 or (value == 0 and option in _POSITIVE):
        kind = "whole number" if option in _WHOLE else "number"
        least = "above 0" if option in _POSITIVE else "of at least 0"
        raise ValueError(
            f"{option} in lr_scheduler_kwargs is {value!r}, but must be a {kind} {least}."
        )
