"""Overrides: calls what a subclass has overridden with the arguments that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any


def call(function: Callable[..., Any], *args: Any, **optional: Any) -> Any:
    """Call `function` with `args`, and with those of the `optional` arguments that it takes."""
    names = _parameters(getattr(function, "__func__", function))
    if names is None:
        return function(*args, **optional)
    return function(*args, **{name: value for name, value in optional.items() if name in names})


def check_overrides(
    owner: object, base: type, methods: Mapping[str, int], keywords: Sequence[str] = ()
) -> None:
    """Check that the class of `owner` can be called where it overrides methods of `base`.

    Args:
        owner: The object.
        base: The class whose methods may be overridden.
        methods: By name, how many arguments are passed by position.
        keywords: The names of the arguments that are passed by keyword.

    Raises:
        TypeError: A method does not take them. The message says how it is called.
    """
    for name, count in methods.items():
        if getattr(type(owner), name) is getattr(base, name):
            continue
        expected = inspect.signature(getattr(base, name))
        own = inspect.signature(getattr(owner, name))
        try:
            own.bind(*[None] * count, **dict.fromkeys(keywords))
        except TypeError as error:
            raise TypeError(
                f"{type(owner).__name__}.{name} has the parameters {own}, but is called as "
                f"{name}{_without_self(expected)}: {error}. Give it the same parameters."
            ) from None


@lru_cache
def _parameters(function: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names of the parameters; `None` if there may be any."""
    taken = inspect.signature(function).parameters.values()
    takes_any = any(one.kind is one.VAR_KEYWORD for one in taken)
    return None if takes_any else frozenset(one.name for one in taken)


def _without_self(signature: inspect.Signature) -> str:
    parameters = list(signature.parameters.values())[1:]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))
