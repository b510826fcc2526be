"""`CallbackList`: validates the callbacks that are added, and reports changes to the handler."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from callback_core.validation import check_callback, warn_of_misspelt_names


class CallbackList(list[Any]):
    """The callbacks of a handler: a list, because code for transformers expects one.

    A copy, pickled or not, is a plain list. A refused change leaves the list as it was.

    Args:
        callbacks: The callbacks.
        changed: Called after each change.

    Raises:
        TypeError: A callback that is added cannot be called.
        ValueError: A callback that is added has an invalid `on_error`.
    """

    def __init__(self, callbacks: Iterable[Any], changed: Callable[[], None]) -> None:
        super().__init__(callbacks)
        for callback in self:
            check_callback(callback)
            warn_of_misspelt_names(callback)
        self._changed = changed

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the handler out of a copy."""
        return list, (list(self),)


def _reporting(name: str) -> Callable[..., Any]:
    change = getattr(list, name)

    def method(self: CallbackList, *args: Any, **kwargs: Any) -> Any:
        before = list(self)
        result = change(self, *args, **kwargs)
        added = [one for one in self if not any(one is known for known in before)]
        try:
            for callback in added:
                check_callback(callback)
        except (TypeError, ValueError):
            list.__setitem__(self, slice(None), before)
            raise
        for callback in added:
            warn_of_misspelt_names(callback)
        self._changed()
        return result

    method.__name__, method.__doc__ = name, change.__doc__
    return method


for _name in ("append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"):
    setattr(CallbackList, _name, _reporting(_name))
for _name in ("__delitem__", "__iadd__", "__imul__", "__setitem__"):
    setattr(CallbackList, _name, _reporting(_name))
