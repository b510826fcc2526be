"""Validates that an object can be used as a callback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final
from weakref import WeakSet

from callback_core.callback import TrainerCallback
from callback_core.events import COMMON_KEYWORDS, EVENTS
from callback_core.failures import check_policy
from callback_core.persistence import has_state
from callback_core.spelling import OTHER_EVENTS, meant_by

logger = logging.getLogger(__name__)

# inspect.CO_VARKEYWORDS, without the 10 ms that importing inspect takes
_TAKES_ANY_KEYWORD: Final = 0x08


_warned_of: Final[WeakSet[type]] = WeakSet()
"""The classes whose misspelt names were reported."""


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
        misspelt = [
            f" Its {name} may be meant to be {meant}."
            for name in dir(callback)
            if name.lower().startswith("on")
            and (meant := OTHER_EVENTS.get(name) or meant_by(name, EVENTS))
        ]
        raise TypeError(
            f"{callback!r} is not a callback: it has none of the event methods (on_train_begin, "
            "on_log, …). Pass a subclass of TrainerCallback or an instance of one."
            + "".join(misspelt)
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


def warn_of_misspelt_names(callback: Any) -> None:
    """Log which methods and keywords of `callback` are probably misspelt, once for each class."""
    cls = type(callback)
    if cls in _warned_of:
        return
    _warned_of.add(cls)
    for name in dir(cls):
        if name in EVENTS:
            for keyword, meant in _misspelt_keywords(name, getattr(cls, name)):
                logger.warning(
                    "%s.%s takes %r, which no loop passes. Did you mean %r?",
                    cls.__name__,
                    name,
                    keyword,
                    meant,
                )
        elif (
            name.lower().startswith("on")
            and _is_own_method(cls, name)
            and (event := OTHER_EVENTS.get(name) or meant_by(name, EVENTS)) is not None
            and not (name in OTHER_EVENTS and overrides(callback, event))
        ):
            logger.warning(
                "%s.%s is not an event, so no loop calls it. Did you mean %s%s?",
                cls.__name__,
                name,
                event,
                ", as it is called here" if name in OTHER_EVENTS else "",
            )


def _misspelt_keywords(event: str, method: Any) -> list[tuple[str, str]]:
    """Return the keywords of `method` that are near one that `event` passes, with that one."""
    code = getattr(method, "__code__", None)
    if code is None:
        return []
    passed = (*COMMON_KEYWORDS, *EVENTS[event].passes)
    # After self, args, state and control, which may have any name.
    keywords = code.co_varnames[4 : code.co_argcount + code.co_kwonlyargcount]
    return [
        (keyword, meant)
        for keyword in keywords
        if keyword not in passed and (meant := meant_by(keyword, passed)) is not None
    ]


def _is_own_method(cls: type, name: str) -> bool:
    """Return whether `name` is a method that a subclass of `TrainerCallback` came up with.

    It may also be the method of another library's callback that `cls` extends.
    """
    first = [base for base in cls.__mro__ if name in vars(base)][-1]
    return callable(getattr(cls, name)) and any(
        base.__name__ == TrainerCallback.__name__ for base in first.__mro__
    )


def list_callbacks(callbacks: Iterable[Any] | None) -> list[Any]:
    """Return `callbacks` as a list; `None` as an empty one.

    Raises:
        TypeError: `callbacks` is not several callbacks, for example because it is a callback.
    """
    if callbacks is None:
        return []
    if isinstance(callbacks, (type, str, bytes, Mapping)) or not isinstance(callbacks, Iterable):
        is_text = isinstance(callbacks, (str, bytes))
        one = callbacks if isinstance(callbacks, type) else type(callbacks)
        raise TypeError(
            f"callbacks is {repr(callbacks) if is_text else one.__name__}, but must be a list of "
            "callbacks. Put a single callback into a list: [callback]."
        )
    return list(callbacks)


def instantiate(callback: Any) -> Any:
    """Return `callback`, or an instance of it if it is a class.

    Raises:
        TypeError: It is a class that needs arguments.
    """
    if not isinstance(callback, type):
        return callback
    try:
        return callback()
    except TypeError as error:
        import inspect  # here, because it takes 10 ms

        try:
            inspect.signature(callback).bind()
        except TypeError:
            raise TypeError(
                f"{callback.__name__} is a class that needs arguments, so pass an instance of it: "
                f"{callback.__name__}(…). {error}."
            ) from None
        except ValueError:  # it has no signature
            pass
        raise
