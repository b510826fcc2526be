"""Configuration: an argument, then a variable, then a default; what is wrong is said at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from callback_contract._case import Case
from callback_contract._registry import rule
from callback_contract._subject import Setting
from callback_contract._violation import ContractViolation, require

_MEND = "Read it by a function of callback_core.tracking.config, in the constructor."


@contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    was = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if was is not None:
            os.environ[name] = was


def _value(case: Case, one: Setting, written: str | None, *given: Any) -> Any:
    """Return the value that counts where this is written in the variable, and this is given."""
    arguments = {one.argument: given[0]} if given else {}
    with _variable(one.variable, written):
        try:
            made = case.subject.make_with(case.output_dir, **arguments)
        except ValueError as error:
            how = f"{one.variable}={written!r}, {arguments}"
            raise ContractViolation(f"with {how} it is not made: {error!r}") from error
    holder = made if hasattr(made, one.argument) else made.tracker
    return getattr(holder, one.argument)


def _error(case: Case, one: Setting, written: str | None, *given: Any) -> str:
    """Return the message of the ValueError; nothing where it is made."""
    try:
        _value(case, one, written, *given)
    except ContractViolation as violation:
        return str(violation.__cause__)
    return ""


@rule(
    "CFG-001",
    needs=("settings",),
    why="What was given in the program lost against a variable that somebody had set long ago "
    "(mlflow/mlflow#8877).",
    mend=_MEND,
)
def an_argument_goes_before_a_variable(case: Case) -> None:
    """An argument counts before its variable, and that before the default; if empty, it is none."""
    for one in case.subject.settings:
        for given, meant in one.given:
            beside = one.examples[0][0]
            value = _value(case, one, beside, given)
            require(
                value == meant and type(value) is type(meant),
                f"{one.argument}={given!r} beside {one.variable}={beside!r} is {value!r}",
            )
        for written in (None, "", "  "):
            value = _value(case, one, written)
            require(value == one.default, f"with {one.variable}={written!r} it is {value!r}")


@rule(
    "CFG-002",
    needs=("settings",),
    why="A variable that was `true` in one tracker had to be `TRUE` in another, and was ignored "
    "(transformers 5.23.0).",
    mend=_MEND,
)
def a_variable_means_what_its_documentation_says(case: Case) -> None:
    """Each form of a variable that is documented, with spaces around it too, has its meaning."""
    for one in case.subject.settings:
        for written, meant in one.examples:
            for form in (written, f" {written}\n"):
                value = _value(case, one, form)
                require(
                    value == meant and type(value) is type(meant),
                    f"{one.variable}={form!r} is {value!r} and not {meant!r}",
                )


@rule(
    "CFG-003",
    needs=("settings",),
    why="An unknown COMET_MODE switches Comet off with no more than a warning, which is found "
    "hours in (transformers 5.23.0).",
    mend=_MEND,
)
def a_wrong_variable_is_refused_at_once(case: Case) -> None:
    """A wrong variable is a ValueError at construction that names it, the value and the choices."""
    for one in case.subject.settings:
        for written in one.wrong:
            message = _error(case, one, written)
            named = one.variable in message and repr(written) in message
            require(named, f"with {one.variable}={written!r} it says {message!r}")
            missing = [choice for choice in one.choices if choice not in message]
            require(not missing, f"with {one.variable}={written!r} it does not name {missing}")


@rule(
    "CFG-004",
    needs=("settings",),
    why="A flag that was given as the string 'False' was true (transformers 5.23.0).",
    mend=_MEND,
)
def a_wrong_argument_is_refused_at_once(case: Case) -> None:
    """A wrong argument is a ValueError at construction that names it and the value."""
    for one in case.subject.settings:
        for given in one.wrong_given:
            message = _error(case, one, None, given)
            named = message.startswith(f"{one.argument} is {given!r}, it must be ")
            require(named, f"with {one.argument}={given!r} it says {message!r}")
