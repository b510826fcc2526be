"""Configuration: an argument overrides a variable, and invalid values raise at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

from callback_contract._case import Case
from callback_contract._registry import rule
from callback_contract._subject import Setting
from callback_contract._violation import ContractViolation, require

_settings_rule = partial(
    rule,
    needs=("settings",),
    fix="Read the setting in the constructor, with a function of callback_core.tracking.config.",
)


@contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    with mock.patch.dict(os.environ):
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
        yield


def _value(case: Case, setting: Setting, text: str | None, *given: Any) -> Any:
    """Return the setting's value for this text of the variable and this argument, if any."""
    arguments = {setting.argument: given[0]} if given else {}
    with _variable(setting.variable, text):
        try:
            callback = case.subject.make_with(case.output_dir, **arguments)
        except ValueError as error:
            raise ContractViolation(
                f"with {setting.variable}={text!r} and {arguments}, the constructor raised "
                f"{error!r}"
            ) from error
    tracker = getattr(callback, "tracker", None)
    holder = tracker if hasattr(tracker, setting.argument) else callback
    return getattr(holder, setting.argument)


def _error(case: Case, setting: Setting, text: str | None, *given: Any) -> str:
    """Return the message of the constructor's ValueError; an empty string if there is none."""
    try:
        _value(case, setting, text, *given)
    except ContractViolation as violation:
        return str(violation.__cause__)
    return ""


@_settings_rule(
    "CFG-001",
    why="A value in the program lost against a variable that somebody had set long before "
    "(mlflow/mlflow#8877).",
)
def an_argument_overrides_a_variable(case: Case) -> None:
    """An argument overrides its variable, which overrides the default.

    An empty variable counts as not set.
    """
    for setting in case.subject.settings:
        for given, expected in setting.given:
            text = setting.examples[0][0]
            value = _value(case, setting, text, given)
            require(
                value == expected and type(value) is type(expected),
                f"{setting.argument}={given!r} with {setting.variable}={text!r} is {value!r}",
            )
        for empty in (None, "", "  "):
            value = _value(case, setting, empty)
            require(value == setting.default, f"with {setting.variable}={empty!r} it is {value!r}")


@_settings_rule(
    "CFG-002",
    why="One tracker read `true` from a variable, and another ignored everything except `TRUE` "
    "(transformers 5.23.0).",
)
def a_variable_accepts_its_documented_forms(case: Case) -> None:
    """Each documented form of a variable has its meaning, also with whitespace around it."""
    for setting in case.subject.settings:
        for text, expected in setting.examples:
            for form in (text, f" {text}\n"):
                value = _value(case, setting, form)
                require(
                    value == expected and type(value) is type(expected),
                    f"{setting.variable}={form!r} is {value!r}, not {expected!r}",
                )


@_settings_rule(
    "CFG-003",
    why="An unknown COMET_MODE only logs a warning and disables Comet, which the user notices "
    "hours later (transformers 5.23.0).",
)
def an_invalid_variable_raises(case: Case) -> None:
    """For an invalid variable, the constructor raises a ValueError.

    The error names the variable, the value and the choices.
    """
    for setting in case.subject.settings:
        for text in setting.wrong:
            message = _error(case, setting, text)
            named = setting.variable in message and repr(text) in message
            require(named, f"with {setting.variable}={text!r}, the error is {message!r}")
            missing = [choice for choice in setting.choices if choice not in message]
            require(not missing, f"with {setting.variable}={text!r}, the error lacks {missing}")


@_settings_rule(
    "CFG-004",
    why="The string 'False' enabled a flag (transformers 5.23.0).",
)
def an_invalid_argument_raises(case: Case) -> None:
    """For an invalid argument, the constructor raises a ValueError that names it and the value."""
    for setting in case.subject.settings:
        for given in setting.wrong_given:
            message = _error(case, setting, None, given)
            named = message.startswith(f"{setting.argument} is {given!r}, it must be ")
            require(named, f"with {setting.argument}={given!r}, the error is {message!r}")
