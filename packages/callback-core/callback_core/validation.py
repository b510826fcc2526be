"""Validates that an object can be used as a callback."""

from __future__ import annotations

import sys
from typing import Any, Final

from callback_core.callback import TrainerCallback
from callback_core.events import EVENTS
from callback_core.failures import check_policy
from callback_core.persistence import has_state

# inspect.CO_VARKEYWORDS, without the 10 ms that importing inspect takes
_TAKES_ANY_KEYWORD: Final = 0x08


def overrides(callback: Any, event: str) -> bool:
    """Return whether `callback` has a method for `event` other than an empty one.

    The empty methods are those of our and of transformers' base class.
    """
    method = getattr(callback, event, None)
    if method is None:
        return False
    theirs = getattr(sys.modules.get("transformers.trainer_callback"), "TrainerCallback", None)
    function = getattr(method, "__func__", method)
    return all(function is not getattr(base, event, None) for base in (TrainerCallback, theirs))


def check_callback(callback: Any) -> None:
    """Refuse an object that the loop cannot call.

    Raises:
        TypeError: `callback` is a class, has no event method, has one that refuses unknown
            keywords, or has only one of `state_dict` and `load_state_dict`.
        ValueError: Its `on_error` is invalid.
    """
    methods = {name: getattr(callback, name, None) for name in EVENTS}
    if not any(callable(method) for method in methods.values()):
        raise TypeError(
            f"{callback!r} is not a callback: it has none of the event methods (on_train_begin, "
            "on_log, …). Pass a subclass of TrainerCallback or an instance of one."
        )
    if isinstance(callback, type):
        raise TypeError(f"{callback!r} is a class: add an instance of it, or use add_callback.")
    for name, method in methods.items():
        code = getattr(method, "__code__", None)
        if code is not None and not code.co_flags & _TAKES_ANY_KEYWORD:
            raise TypeError(
                f"{type(callback).__name__}.{name} would fail when it is called: events pass "
                "keywords such as model and optimizer. End its signature with **kwargs."
            )
    check_policy(callback)
    has_state(callback)
