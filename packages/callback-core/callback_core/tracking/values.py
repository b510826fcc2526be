"""Making values plain, and fitting them into what a tracker can take."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from callback_core.tracking.tracker import Limits

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


def flattened(values: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Return `values` with nested mappings as single entries, their keys joined by `separator`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            inner = flattened(value, separator)
            flat.update({f"{key}{separator}{name}": part for name, part in inner.items()})
        else:
            flat[str(key)] = value
    return flat


def fitting_name(name: str, limits: Limits) -> str:
    """Return `name` within `limits`."""
    if limits.key_characters is not None:
        name = re.sub(f"[^{limits.key_characters}]", "_", name)
    return name[: limits.key_length]


def fitting_parameters(
    parameters: Mapping[str, Any], limits: Limits
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return `parameters` within `limits`, and what was done to which of them."""
    cut: dict[str, str] = {}
    fitting: dict[str, Any] = {}
    for number, (name, value) in enumerate(parameters.items()):
        if limits.parameter_count is not None and number >= limits.parameter_count:
            cut[name] = f"left out: more than {limits.parameter_count} parameters"
            continue
        if limits.parameter_length is not None and len(str(value)) > limits.parameter_length:
            value = str(value)[: limits.parameter_length - 1] + "…"
            cut[name] = f"cut to {limits.parameter_length} characters"
        sent_as = fitting_name(name, limits)
        if sent_as in fitting:
            cut[name] = f"left out: has the name of another: {sent_as}"
            continue
        if len(sent_as) < len(name):
            cut[name] = f"its name is cut to {sent_as}"
        fitting[sent_as] = value
    return fitting, cut
