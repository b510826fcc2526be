"""What classes and their modules keep: rules and trainings must not find it changed by others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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

    This covers numbers, strings, tensors and containers of them. Flags stay as they are, because
    one may guard what a process has only once, such as a server.
    """
    package = kind.__module__.partition(".")[0]
    classes = [one for one in kind.__mro__ if one.__module__.partition(".")[0] == package]
    modules = {sys.modules.get(one.__module__) for one in classes}
    kept = [
        (owner, name, value, deepcopy(value))
        for owner in (*classes, *filter(None, modules))
        for name, value in vars(owner).items()
        if not name.startswith("__") and is_plain(value) and not isinstance(value, bool)
    ]
    try:
        yield
    finally:
        for owner, name, value, before in kept:
            now = vars(owner).get(name)
            if isinstance(now, bool) or not is_plain(now, arrays=True):
                continue
            if not is_plain(now) or now != before:
                if hasattr(value, "clear"):
                    value.clear()
                    (value.extend if hasattr(value, "extend") else value.update)(before)
                setattr(owner, name, value)
