"""Writes NaN and infinities as standard JSON, and replaces files atomically.

Standard JSON has neither NaN nor infinities. They are written as `{"__float__": "NaN"}`,
`{"__float__": "Infinity"}` and `{"__float__": "-Infinity"}`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

FLOAT: Final = "__float__"
"""The key that marks a number that JSON does not have."""

_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def marked_float(value: float) -> dict[str, str]:
    """Return the mark that stands for a `value` that is not finite."""
    return {FLOAT: "NaN" if value != value else f"{'-' * (value < 0)}Infinity"}


def unmarked_float(marked: dict[str, Any]) -> float | None:
    """Return the number for which `marked` stands; `None` if it is any other object."""
    name = marked.get(FLOAT) if len(marked) == 1 else None
    return _NOT_FINITE.get(name) if isinstance(name, str) else None


def scalar(value: Any) -> Any:
    """Return the Python number in `value`, an array or tensor of one element.

    Raises:
        TypeError: `value` is of another type, has more or fewer elements, or has no data.
    """
    shape = getattr(value, "shape", None)
    if shape is None:
        raise TypeError(f"it is a {_type_name(value)}")
    if math.prod(shape) != 1:
        raise TypeError(f"it is a {_type_name(value)} of shape {tuple(shape)}, not a single number")
    try:
        item = value.item() if hasattr(value, "item") else float(value)
    except Exception as error:  # for example from a tensor on torch's device "meta"
        raise TypeError(f"it is a {_type_name(value)} without a value: {error}") from error
    if type(item) is not type(value):
        return item
    # numpy's longdouble returns itself, because Python has no such type; so does its complex.
    if not hasattr(item, "is_integer"):
        raise TypeError(f"it is a {_type_name(value)}")
    return float(item)


def json_value(value: Any) -> Any:
    """Return `value` as JSON represents it. Text stands for what JSON does not have.

    Arrays and tensors become lists, and single numbers of theirs become numbers.
    """
    if isinstance(value, Enum):
        return json_value(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        own: Any = value
        return own.item() if hasattr(own, "item") else own  # numpy's float64 is a float
    if hasattr(value, "tolist"):  # of numpy, torch, jax
        plain = value.tolist()
        return str(value) if type(plain) is type(value) else json_value(plain)  # numpy's longdouble
    if isinstance(value, Mapping):
        return {str(json_value(key)): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((json_value(item) for item in value), key=repr)
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: json_value(getattr(value, item.name)) for item in fields(value)}
    return str(value).removeprefix("torch.")


def write_atomically(path: str | os.PathLike[str], text: str, *, sync: bool = True) -> None:
    """Replace the content of a file. At any time, it holds either the old or the new text.

    Args:
        path: The file. A symbolic link stays a link, and the file to which it points is replaced.
        text: The new content.
        sync: Whether to flush to the disk, so that this holds even after a loss of power.
    """
    target = os.path.realpath(path)
    beside = f"{target}.{os.urandom(6).hex()}.tmp"
    try:
        with open(beside, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
