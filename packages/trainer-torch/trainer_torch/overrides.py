"""Overrides: calls what a subclass has overridden with the arguments that it takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple


def call(function: Callable[..., Any], *args: Any, **optional: Any) -> Any:
    """Call `function` with `args`, and with those of the `optional` arguments that it takes."""
    taken = parameters_of(function)
    if taken.takes_any or optional.keys() <= taken.names:
        return function(*args, **optional)
    return function(*args, **{k: value for k, value in optional.items() if k in taken.names})


class Parameters(NamedTuple):
    """The names of the parameters of a function, and whether it takes any others by keyword."""

    names: frozenset[str]
    takes_any: bool


def parameters_of(function: Callable[..., Any]) -> Parameters:
    """Return the parameters of `function`; none if it is not written in Python."""
    function = getattr(function, "__func__", function)
    try:
        return _remembered(function)
    except TypeError:  # an object that is called, and that has no hash
        return _read(function)


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


def _read(function: Callable[..., Any]) -> Parameters:
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return Parameters(frozenset(), takes_any=False)
    return Parameters(frozenset(found), any(one.kind is one.VAR_KEYWORD for one in found.values()))


_remembered = lru_cache(_read)  # each step asks for it


def _without_self(signature: inspect.Signature) -> str:
    parameters = list(signature.parameters.values())[1:]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))
