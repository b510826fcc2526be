"""Texts for messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_MOST: Final = 5


def listed(names: Iterable[str]) -> str:
    """Return the first few of `names`, and how many more there are."""
    names = list(names)
    more = len(names) - _MOST
    return ", ".join(names[:_MOST]) + (f" and {more} more" if more > 0 else "")
