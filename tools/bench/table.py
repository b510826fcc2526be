"""Shared by the benchmarks: alternating measurements, a table of results, and targets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from time import perf_counter
from typing import Any


def times_in_turns(
    sides: Mapping[str, Callable[[], Any]],
    repeats: int,
    calls: int = 1,
    typical: Callable[[Iterable[float]], float] = median,
) -> dict[str, float]:
    """Return the typical seconds per call of each side.

    The sides alternate, so that other load on the machine affects all of them.

    Args:
        sides: The functions to measure, by name. Each makes `calls` calls.
        repeats: How often to measure each side. One more run comes first and does not count.
        calls: The calls that each function makes.
        typical: Reduces the times of a side to one. Use `min` for a time with a fixed limit,
            because other load can only add time. Use the median for times that are compared.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            begun = perf_counter()
            side()
            if repeat:
                taken[name].append((perf_counter() - begun) / calls)
    return {name: typical(times) for name, times in taken.items()}


def print_table(title: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table. The first column is aligned to the left, the others to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(f"\n{title}\n")
    for line in lines:
        first, *others = (
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([f"  {first}", *others]))


def shown(seconds: float) -> str:
    """Return a time with a suitable unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds * 1e9:.1f} ns"


class Targets:
    """The targets of a benchmark, and whether it met them."""

    def __init__(self) -> None:
        self._missed = False

    def note(self, what: str, met: bool) -> None:
        """Print whether the target `what` is met."""
        self._missed |= not met
        print(f"\n  {'met' if met else 'MISSED'}: {what}")

    def leave(self) -> None:
        """End the program; with 1 if a target was missed and `--check` was given."""
        sys.exit(1 if self._missed and checks() else 0)


def checks() -> bool:
    """Parse the command line, and return whether it has `--check`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--quick", action="store_true", help="only show that the script works")
    return bool(parser.parse_args().check)


def is_quick() -> bool:
    """Return whether the command line has `--quick`: too few measurements for the targets."""
    return "--quick" in sys.argv
