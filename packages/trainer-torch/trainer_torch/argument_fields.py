"""The fields of arguments, as far as their dataclasses describe them."""

from __future__ import annotations

from dataclasses import MISSING, Field
from typing import Any


def default_of(item: Field[Any]) -> Any:
    """Return the default of a field, or `MISSING` if it has none."""
    return item.default if item.default_factory is MISSING else item.default_factory()
