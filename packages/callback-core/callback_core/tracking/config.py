"""Reads a setting: the constructor's argument, else an environment variable, else nothing.

Each function takes the name of the argument, its value, and the name of the variable or `None`. If
neither is set, it returns `None` (`mapping` returns an empty dict). An empty variable counts as not
set. A wrong value raises a `ValueError` that names its source, the value, and what it must be.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

TRUE: Final = ("1", "ON", "YES", "TRUE")
FALSE: Final = ("0", "OFF", "NO", "FALSE")


class Setting(NamedTuple):
    """A value and its source.

    Attributes:
        source: The name of the argument or of the environment variable.
        value: The value; `None` if neither is set.
        from_environment: Whether it comes from the variable, so that it is a string.
    """

    source: str
    value: Any
    from_environment: bool

    def error(self, demand: str) -> ValueError:
        """Return the error for a value that does not meet the demand."""
        return ValueError(f"{self.source} is {self.value!r}, it must be {demand}.")


def setting(argument: str, given: Any, variable: str | None) -> Setting:
    """Return the value, of any type, and its source."""
    if given is None and variable is not None:
        value = os.environ.get(variable, "").strip() or None
        return Setting(variable, value, from_environment=True)
    return Setting(argument, given, from_environment=False)


def text(argument: str, given: str | None, variable: str | None) -> str | None:
    """Return a string that is not empty."""
    found = setting(argument, given, variable)
    if found.value is not None and not (isinstance(found.value, str) and found.value.strip()):
        raise found.error("a string that is not empty")
    return found.value


def matching(
    argument: str, given: str | None, variable: str | None, pattern: str, demand: str
) -> str | None:
    """Return a string that matches a regular expression, which `demand` describes."""
    found = setting(argument, given, variable)
    if found.value is not None and not (
        isinstance(found.value, str) and re.fullmatch(pattern, found.value)
    ):
        raise found.error(demand)
    return found.value


def choice(
    argument: str, given: str | None, variable: str | None, choices: Sequence[str]
) -> str | None:
    """Return one of `choices`. Upper and lower case do not matter."""
    found = setting(argument, given, variable)
    if found.value is None:
        return None
    for known in choices:
        if isinstance(found.value, str) and found.value.lower() == known.lower():
            return known
    raise found.error(f"one of: {', '.join(choices)}")


def flag(argument: str, given: bool | None, variable: str | None) -> bool | None:
    """Return whether something is on; `None` if neither is set.

    A variable is one of 1, ON, YES, TRUE, 0, OFF, NO, FALSE, in upper or lower case.
    """
    found = setting(argument, given, variable)
    if found.value is None or isinstance(found.value, bool):
        return found.value
    if found.from_environment and found.value.upper() in (*TRUE, *FALSE):
        return found.value.upper() in TRUE
    choices = (*TRUE, *FALSE) if found.from_environment else ("True", "False")
    raise found.error(f"one of: {', '.join(choices)}")


def count(argument: str, given: int | None, variable: str | None) -> int | None:
    """Return a whole number, 0 or more."""
    found = setting(argument, given, variable)
    if found.value is None:
        return None
    if found.from_environment and found.value.isdecimal():
        return int(found.value)
    if isinstance(found.value, int) and not isinstance(found.value, bool) and found.value >= 0:
        return found.value
    raise found.error("a whole number, 0 or more")


def seconds(argument: str, given: float | None, variable: str | None) -> float | None:
    """Return seconds, more than 0 and finite."""
    found = setting(argument, given, variable)
    try:
        value = None if found.value is None else float(found.value)
    except (TypeError, ValueError):
        raise found.error("seconds, more than 0") from None
    if value is not None and not 0 < value < float("inf"):
        raise found.error("seconds, more than 0")
    return value


def directory(
    argument: str, given: str | os.PathLike[str] | None, variable: str | None
) -> str | None:
    """Return the absolute path of a directory, so that another process finds it too."""
    path = os.fspath(given) if isinstance(given, os.PathLike) else given
    value = text(argument, path, variable)
    return None if value is None else os.path.abspath(os.path.expanduser(value))


def mapping(argument: str, given: Mapping[str, Any] | None, variable: str | None) -> dict[str, Any]:
    """Return a mapping, empty if neither is set. A variable is a JSON object."""
    found = setting(argument, given, variable)
    value, demand = found.value, "a mapping"
    if found.from_environment and value is not None:
        demand = 'a JSON object such as {"stage": "test"}'
        try:
            value = json.loads(value)
        except ValueError as error:
            raise found.error(f"{demand}: {error}") from None
    if value is not None and not isinstance(value, Mapping):
        raise found.error(demand)
    return {str(name): part for name, part in (value or {}).items()}
