"""`default_collator`: makes a batch of samples whose values may be plain lists and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate


def default_collator(samples: Sequence[Any]) -> Any:
    """Return a batch of `samples`, as torch's `default_collate` makes it of tensors.

    In samples that are mappings, lists of numbers become tensors first, and so do floating point
    numbers, in torch's default type. As in transformers, token ids as lists then give a tensor of
    shape (batch, length). torch would make a list of tensors for each position, and float64.
    """
    return default_collate([_with_tensors(sample) for sample in samples])


def _with_tensors(sample: Any) -> Any:
    if not isinstance(sample, Mapping):
        return sample
    converted = {name: _tensor(value) for name, value in sample.items()}
    is_same = all(converted[name] is value for name, value in sample.items())
    return sample if is_same else converted


def _tensor(value: Any) -> Any:
    """Return a float, or a list of numbers, as a tensor; anything else as it is."""
    if type(value) is float or (isinstance(value, list) and value and _is_numeric(value)):
        try:
            made: Tensor = torch.tensor(value)
        except ValueError:  # its rows differ in length
            return value
        return made
    return value


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_numeric, value))
    return isinstance(value, Real)
