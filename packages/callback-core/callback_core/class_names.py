"""Recognizes transformers' classes by their names, without importing transformers."""

from __future__ import annotations

from typing import Any


def has_base_named(thing: Any, class_name: str) -> bool:
    """Return whether a class of this name, ours or transformers', is among the bases of `thing`."""
    return any(base.__name__ == class_name for base in type(thing).__mro__)
