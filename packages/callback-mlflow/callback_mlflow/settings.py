"""Reading a setting: what was given, or else an environment variable, or else nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from posixpath import normpath
from typing import Any, Final

TRUE: Final = ("1", "ON", "YES", "TRUE")
FALSE: Final = ("0", "OFF", "NO", "FALSE")

_TAG: Final = re.compile(r"[\w.\- /:]{1,250}")
_RUN_ID: Final = re.compile(r"[a-zA-Z0-9][\w-]{0,255}")


def text(argument: str, given: str | None, variable: str) -> str | None:
    """Return a string.

    Raises:
        ValueError: It is none.
    """
    source, value = _source(argument, given, variable)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise ValueError(f"{source} is {value!r}, it must be a string that is not empty.")
    return value


def run_id(argument: str, given: str | None, variable: str) -> str | None:
    """Return the id of a run.

    Raises:
        ValueError: MLflow has no ids like that.
    """
    source, value = _source(argument, given, variable)
    if value is not None and not (isinstance(value, str) and _RUN_ID.fullmatch(value)):
        raise ValueError(
            f"{source} is {value!r}, it must be the id of a run: letters, digits, _ and -, at most "
            "256 of them."
        )
    return value


def flag(argument: str, given: bool | None, variable: str) -> bool:
    """Return whether something is to be done; not, where nothing is said.

    Raises:
        ValueError: It is neither true nor false.
    """
    source, value = _source(argument, given, variable)
    if isinstance(value, bool) or value is None:
        return bool(value)
    if source == variable and value.upper() in (*TRUE, *FALSE):
        return value.upper() in TRUE
    choices = ", ".join((*TRUE, *FALSE)) if source == variable else "True, False"
    raise ValueError(f"{source} is {value!r}, it must be one of: {choices}.")


def count(argument: str, given: int | None, variable: str) -> int | None:
    """Return a whole number from 0 on.

    Raises:
        ValueError: It is none.
    """
    source, value = _source(argument, given, variable)
    if source == variable and isinstance(value, str) and value.isdecimal():
        value = int(value)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"{source} is {value!r}, it must be a whole number, 0 or more.")


def tags(argument: str, given: Mapping[str, Any] | None, variable: str) -> dict[str, str]:
    """Return names and values of tags.

    Raises:
        ValueError: It is no mapping, or no JSON of one, or MLflow has no tags like that.
    """
    source, value = _source(argument, given, variable)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(
                f'{source} is {value!r}, it must be a JSON object such as {{"stage": "test"}}: '
                f"{error}."
            ) from None
    if value is not None and not isinstance(value, Mapping):
        kind = "a JSON object" if source == variable else "a mapping"
        raise ValueError(f"{source} is {value!r}, it must be {kind} of tags.")
    for name in value or ():
        if not (_TAG.fullmatch(str(name)) and normpath(str(name)) == str(name)):
            raise ValueError(
                f"{source} has a tag {name!r}, it must be a name of letters, digits and ._-:/ or "
                "spaces, at most 250 of them."
            )
    return {str(name): _as_text(part) for name, part in (value or {}).items()}


def _source(argument: str, given: Any, variable: str) -> tuple[str, Any]:
    """Return the value that counts and the name of where it comes from; an empty one is none."""
    if given is not None:
        return argument, given
    return variable, os.environ.get(variable, "").strip() or None


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
