"""The list of a handler's callbacks, which tells the handler when somebody changes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class CallbackList(list[Any]):
    """A list, as `transformers` code expects `handler.callbacks` to be, that reports its changes.

    Args:
        callbacks: The callbacks.
        changed: Called after each change.
    """

    def __init__(self, callbacks: Iterable[Any], changed: Callable[[], None]) -> None:
        super().__init__(callbacks)
        self._changed = changed


def _reporting(name: str) -> Callable[..., Any]:
    change = getattr(list, name)

    def method(self: CallbackList, *args: Any, **kwargs: Any) -> Any:
        result = change(self, *args, **kwargs)
        self._changed()
        return result

    method.__name__, method.__doc__ = name, change.__doc__
    return method


for _name in ("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"):
    setattr(CallbackList, _name, _reporting(_name))
for _name in ("__delitem__", "__iadd__", "__imul__", "__setitem__"):
    setattr(CallbackList, _name, _reporting(_name))
