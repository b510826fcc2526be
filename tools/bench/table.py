"""What the measurements share: taking turns, and a table of what came of it."""

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
    """Return the seconds of a call of each side, typical of `repeats`.

    The sides take turns, so that whatever else the machine does strikes all of them.

    Args:
        sides: What is measured, by name. Each makes `calls` calls.
        repeats: How often each side has its turn, after a first one that does not count.
        calls: How many calls a turn is.
        typical: Chooses one of a side's times. `min` for a time that is judged by itself, to which
            other load only adds; the median for times that are compared.
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
    """Print `rows` below `head`, the first column to the left and the others to the right."""
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
    """Return a time in the unit that suits it."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.2f} {unit}"
    return f"{seconds * 1e9:.1f} ns"


class Targets:
    """The targets of a measurement, and whether it meets them."""

    def __init__(self) -> None:
        self._missed = False

    def note(self, what: str, met: bool) -> None:
        """Print whether the target `what` is met."""
        self._missed |= not met
        print(f"\n  {'met' if met else 'MISSED'}: {what}")

    def leave(self) -> None:
        """End the program: with 1 where a target was missed and `--check` was given."""
        sys.exit(1 if self._missed and checks() else 0)


def checks() -> bool:
    """Return whether the command line asks to fail when a target is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    return bool(parser.parse_args().check)
