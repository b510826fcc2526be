"""Learning rate schedules: the factor of the learning rate at a step, as in transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final


def linear(step: int, *, warmup: int, total: int) -> float:
    """Rise from 0 during the warm-up, then fall linearly to 0."""
    if step < warmup:
        return _rise(step, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def cosine(step: int, *, warmup: int, total: int) -> float:
    """Rise from 0 during the warm-up, then fall to 0 along half a cosine."""
    if step < warmup:
        return _rise(step, warmup)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup))))


def constant(step: int, *, warmup: int, total: int) -> float:
    """Stay at 1. There is no warm-up, even if the arguments ask for one."""
    return 1.0


def constant_with_warmup(step: int, *, warmup: int, total: int) -> float:
    """Rise from 0 during the warm-up, then stay at 1."""
    return _rise(step, warmup) if step < warmup else 1.0


def _rise(step: int, warmup: int) -> float:
    return step / max(1, warmup)


SCHEDULES: Final[dict[str, Callable[..., float]]] = {
    "linear": linear,
    "cosine": cosine,
    "constant": constant,
    "constant_with_warmup": constant_with_warmup,
}
"""The values of `lr_scheduler_type`."""
