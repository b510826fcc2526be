"""Turns logged values into plain ones that JSON knows, and back."""

from __future__ import annotations

import math
import sys
from typing import Any, Final

_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def plain(value: Any) -> Any:
    """Return a number or a string as one that JSON knows, and `None` for anything else.

    Scalars of numpy, torch and the like become Python's, booleans 0 or 1. NaN and infinities become
    `{"__float__": "NaN"}` and so on, as in the file of a `TrainerState`.
    """
    kind = type(value)
    if kind is float:
        if value - value == 0.0:
            return value
        return {"__float__": "NaN" if value != value else f"{'-' * (value < 0)}Infinity"}
    if kind is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of an enum, what it stands for
    if isinstance(value, int):  # no tracker has numbers beyond those of a float
        return int(value) if abs(value) <= sys.float_info.max else None
    if getattr(value, "shape", None) == () or isinstance(value, float):
        try:
            return plain(float(value))  # whole numbers of numpy and torch too, as other points are
        except Exception:  # a scalar that is no number: a date, a complex number, no data at all
            return None
    return None


def restored(value: Any) -> Any:
    """Return what `plain` was given, as a plain value of Python."""
    return _NOT_FINITE[value["__float__"]] if isinstance(value, dict) else value
