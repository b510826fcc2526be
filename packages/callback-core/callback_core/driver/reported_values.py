"""`ReportedValues`: the values that a loop reports, and their means between two logs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Final

from callback_core._json import scalar
from callback_core.processes import Processes

_BYTES: Final = 4
"""Tensors whose numbers have fewer bytes are summed as float32: bfloat16 has only two digits."""


class ReportedValues:
    """The sums of the values that were reported since the last log, by name.

    Tensors are added on their device, so nothing waits for a device before a mean is read.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Any, int]] = {}

    def add(self, values: Mapping[str, Any]) -> None:
        """Add a value for each name.

        Raises:
            TypeError: A value is not a single number.
        """
        for name, value in values.items():
            number = _number(name, value)
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = total + number, count + 1

    def take(self, processes: Processes) -> dict[str, float]:
        """Return the means by name, over all processes, and start over."""
        sums = self.sums(processes)
        self._sums = {}
        return {name: total / count for name, (total, count) in sums.items()}

    def sums(self, processes: Processes) -> dict[str, tuple[float, int]]:
        """Return the sums and the counts by name, over all processes."""
        own = {name: (_plain(total), count) for name, (total, count) in self._sums.items()}
        every = processes.gather(own)
        return {
            name: (
                sum(one[name][0] for one in every if name in one),
                sum(one[name][1] for one in every if name in one),
            )
            for name in dict.fromkeys(name for one in every for name in one)
        }

    def restore(self, sums: Mapping[str, Sequence[Any]]) -> None:
        """Continue with the sums and counts of a checkpoint."""
        self._sums = {name: (total, count) for name, (total, count) in sums.items()}


def _plain(total: Any) -> float:
    return total if isinstance(total, float) else float(scalar(total))


def _number(name: str, value: Any) -> Any:
    """Return `value` in a form that can be summed."""
    if isinstance(value, Real):
        return float(value)
    shape = getattr(value, "shape", None)
    if shape is None or math.prod(shape) != 1:
        what = "" if shape is None else f" of shape {tuple(shape)}"
        raise TypeError(
            f"{name} is a {type(value).__name__}{what}, but only single numbers can be reported. "
            "Log other values with log()."
        )
    number = without_graph(value)
    is_short = hasattr(number, "element_size") and number.element_size() < _BYTES
    return number.float() if is_short else number


def without_graph(value: Any) -> Any:
    """Return `value` without the graph by which torch would compute its gradient."""
    return value.detach() if hasattr(value, "detach") else value
