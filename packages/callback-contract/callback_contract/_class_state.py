"""Restores what a callback's class and module keep, so that no training sees what another left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import partial
from typing import Any, Final

_PLAIN: Final = (bool, int, float, str, type(None))


def is_plain(value: Any, *, arrays: bool = False) -> bool:
    """Return whether `value` is of plain types. With `arrays`, arrays and tensors are plain too."""
    is_part_plain = partial(is_plain, arrays=arrays)
    if isinstance(value, dict):
        return all(map(is_part_plain, [*value, *value.values()]))
    if type(value).__name__ in ("list", "tuple", "set", "frozenset", "deque"):
        return all(map(is_part_plain, value))
    return type(value) in _PLAIN or (arrays and hasattr(value, "dtype"))


@contextmanager
def restored_classes(kind: type) -> Iterator[None]:
    """Restore what the author's classes and their modules keep, at the end of the block.

    This covers numbers, strings and containers of them. Flags stay as they are, because one may
    guard what a process has only once, such as a server.
    """
    kept = [(owner, name, value, deepcopy(value)) for owner, name, value in _plain_members(kind)]
    try:
        yield
    finally:
        for owner, name, value, before in kept:
            now = vars(owner).get(name)
            if now != before and is_plain(now) and not isinstance(now, bool):
                if hasattr(value, "clear"):
                    value.clear()
                    (value.extend if hasattr(value, "extend") else value.update)(before)
                setattr(owner, name, value)


@contextmanager
def dropped_tensors(kind: type) -> Iterator[None]:
    """Drop tensors that the author's classes and their modules keep, at the end of the block.

    Such a value becomes again what it was before, such as `None` or an empty list.
    """
    kept = [(owner, name, deepcopy(value)) for owner, name, value in _plain_members(kind)]
    try:
        yield
    finally:
        for owner, name, before in kept:
            now = vars(owner).get(name)
            with suppress(RuntimeError):  # another thread changes it, or it contains itself
                if is_plain(now, arrays=True) and not is_plain(now):
                    setattr(owner, name, before)


def _plain_members(kind: type) -> Iterator[tuple[Any, str, Any]]:
    """Yield the plain values of the author's classes and their modules, but for flags."""
    package = kind.__module__.partition(".")[0]
    classes = [one for one in kind.__mro__ if one.__module__.partition(".")[0] == package]
    modules = {sys.modules.get(one.__module__) for one in classes}
    for owner in (*classes, *filter(None, modules)):
        for name, value in list(vars(owner).items()):
            with suppress(RuntimeError):  # another thread changes it, or it contains itself
                if not name.startswith("__") and not isinstance(value, bool) and is_plain(value):
                    yield owner, name, value
