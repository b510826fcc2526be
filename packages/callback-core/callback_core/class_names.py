"""Knowing transformers' classes, which take part in all of this, without importing transformers."""

from __future__ import annotations

from typing import Any


def is_a(thing: Any, class_name: str) -> bool:
    """Return whether `thing` is of a class of this name, be it ours or transformers'."""
    return any(base.__name__ == class_name for base in type(thing).__mro__)
