"""`backoff`: how long to wait before the next attempt."""

from __future__ import annotations


def backoff(failures: int, first: float, longest: float) -> float:
    """Return the seconds before the next attempt. They double with each failure in a row.

    Args:
        failures: The number of failures in a row, at least 1.
        first: The seconds after the first failure.
        longest: The most seconds.
    """
    return min(longest, first * 2.0 ** min(failures - 1, 16))
