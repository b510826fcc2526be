"""Converts values to what files hold: JSON, or types that torch loads without unpickling."""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from callback_core import scalar

_ARRAY: Final = "__ndarray__"
"""The key that marks a tensor which was an array of numpy."""


def loadable(value: Any, place: str) -> Any:
    """Return `value` in types that `torch.load(weights_only=True)` reads.

    Single numbers of numpy become Python's. Its arrays become marked tensors, from which `restored`
    makes arrays again.

    Args:
        value: A state, for example that of an optimizer.
        place: What the value is, for the message.

    Raises:
        TypeError: A value in it is of a type that cannot be read again. The message says where.
    """
    if isinstance(value, np.generic):
        return loadable(_number(value, place), place)
    if isinstance(value, np.ndarray):
        return {_ARRAY: _tensor(value, place)}
    if type(value) in (dict, OrderedDict):
        return type(value)(
            (loadable(key, f"A key of {place}"), loadable(item, f"{place}[{key!r}]"))
            for key, item in value.items()
        )
    if type(value) in (list, tuple):
        return type(value)(loadable(item, f"{place}[{i}]") for i, item in enumerate(value))
    if value is None or type(value) in (bool, int, float, str, Tensor, torch.nn.Parameter):
        return value
    _check_readable(value, place)
    return value


def restored(value: Any) -> Any:
    """Return the value from which `loadable` made this one. Numbers remain Python's."""
    if isinstance(value, dict):
        if list(value) == [_ARRAY]:
            return value[_ARRAY].numpy(force=True)
        for key, item in value.items():
            value[key] = restored(item)
        return value
    if type(value) in (list, tuple):
        return type(value)(restored(item) for item in value)
    return value


def _number(value: Any, place: str) -> Any:
    if isinstance(value, np.str_):
        return str(value)
    try:
        return scalar(value)
    except TypeError as error:
        raise _refusal(value, place) from error


def _tensor(value: Any, place: str) -> Tensor:
    try:
        return torch.from_numpy(value.copy())
    except TypeError as error:
        raise _refusal(value, place) from error


def _check_readable(value: Any, place: str) -> None:
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception as error:
        raise _refusal(value, place) from error


def _refusal(value: object, place: str) -> TypeError:
    kind = type(value)
    return TypeError(
        f"{place} is a {kind.__module__}.{kind.__qualname__}, which a checkpoint cannot hold: it "
        "could not be loaded again. Let the state_dict return numbers, text, tensors, arrays, "
        "lists and dicts."
    )
