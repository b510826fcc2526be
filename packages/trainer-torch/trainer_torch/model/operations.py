"""`OperationCounter`: the floating point operations of a training step, by its batch."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Shape = tuple[Any, ...]

MOST_SHAPES: Final = 16
"""Counting makes a step slow, so no more shapes than these are counted."""


class OperationCounter:
    """Counts the operations of the first training step of each shape of batch.

    Torch's `FlopCounterMode` counts the matrix products, convolutions and attentions of the forward
    and the backward pass, and those that activation checkpointing repeats. A step that is counted
    runs without `torch.compile`, because compiled code hides its operations. After some shapes, the
    operations of a new one are those of the nearest shape, in proportion to the number of elements.
    """

    def __init__(self) -> None:
        self._counts: dict[Shape, float] = {}
        self._has_told = False

    @contextmanager
    def counting(self, batch: Any) -> Iterator[None]:
        """Count the operations of the code in this context, if the shape of `batch` is new."""
        shape = shape_of(batch)
        if shape in self._counts or len(self._counts) >= MOST_SHAPES:
            yield
            return
        from torch.utils.flop_counter import FlopCounterMode

        with ExitStack() as stack:
            if "torch._dynamo" in sys.modules:  # something may be compiled
                stack.enter_context(torch.compiler.set_stance("force_eager"))
                stack.enter_context(warnings.catch_warnings())
                # A compiled module warns of the hooks by which the counter knows modules.
                warnings.filterwarnings("ignore", "Using `torch.compile")
            counter = stack.enter_context(FlopCounterMode(display=False))
            yield
        self._counts[shape] = float(counter.get_total_flops())

    def of(self, batch: Any) -> float:
        """Return the operations of a training step on `batch`; 0 before the first is counted."""
        shape = shape_of(batch)
        if shape in self._counts:
            return self._counts[shape]
        if not self._counts:
            return 0.0
        self._tell()
        size = _size(shape)
        nearest = min(self._counts, key=lambda counted: abs(_size(counted) - size))
        return self._counts[nearest] * size / max(1, _size(nearest))

    def clear(self) -> None:
        """Forget all counts."""
        self._counts.clear()
        self._has_told = False

    def state_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {"counts": [[shape, count] for shape, count in self._counts.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._counts = {_as_tuple(shape): count for shape, count in state["counts"]}

    def _tell(self) -> None:
        if not self._has_told:
            self._has_told = True
            logger.warning(
                "The operations of %d shapes of batches were counted. From here on, those of a new "
                "shape are estimated by the nearest of these, because counting is slow.",
                len(self._counts),
            )


def shape_of(batch: Any) -> Shape:
    """Return the shapes of the tensors in `batch`, in nested tuples."""
    if isinstance(batch, Tensor):
        return tuple(batch.shape)
    if isinstance(batch, Mapping):
        return tuple([shape_of(value) for value in batch.values()])
    if isinstance(batch, (list, tuple)):
        return tuple([shape_of(value) for value in batch])
    if hasattr(batch, "__dict__"):
        return tuple([shape_of(value) for value in vars(batch).values()])
    return ()


def _size(shape: Shape) -> int:
    """Return the number of elements in the tensors with these shapes."""
    if not shape:
        return 0
    if all(isinstance(part, int) for part in shape):
        return math.prod(shape)
    return sum(_size(part) for part in shape if not isinstance(part, int))


def _as_tuple(shape: Any) -> Any:
    return tuple(_as_tuple(part) for part in shape) if isinstance(shape, list) else shape
