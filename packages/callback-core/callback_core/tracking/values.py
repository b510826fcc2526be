"""Converts logged values to ones that JSON can represent, and back."""

from __future__ import annotations

import sys
from typing import Any

from callback_core._json import marked_float, scalar, unmarked_float


def plain(value: Any) -> Any:
    """Return a number or a string as JSON can represent it, and `None` for anything else.

    Numbers of numpy, torch and the like become Python's floats, and booleans 0 or 1. NaN and
    infinities are marked, as in the file of a `TrainerState`.
    """
    kind = type(value)
    if kind is float:
        return value if value - value == 0.0 else marked_float(value)
    if kind is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)  # the value of an enum
    if isinstance(value, int):  # no tracker has numbers beyond the range of a float
        return int(value) if abs(value) <= sys.float_info.max else None
    try:  # numpy's whole numbers become floats too, like the other points of their curve
        return plain(float(value if isinstance(value, float) else scalar(value)))
    except Exception:  # not one number: a date, a complex number, a tensor without data
        return None


def restored(value: Any) -> Any:
    """Return what `plain` got, as a plain value of Python."""
    return unmarked_float(value) if isinstance(value, dict) else value
