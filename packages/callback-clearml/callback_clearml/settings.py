"""Reading a setting: what was given, or else an environment variable, or else a default."""

from __future__ import annotations

import os
from typing import Any, Final

TRUE: Final = ("1", "ON", "YES", "TRUE")
FALSE: Final = ("0", "OFF", "NO", "FALSE")

_SHORTEST: Final = 3  # as ClearML has it for names of projects and tasks


def name(argument: str, given: str | None, variable: str, default: str) -> str:
    """Return the name of a project or a task.

    Raises:
        ValueError: ClearML has no names like that.
    """
    source, value = _source(argument, given, variable)
    if value is None:
        return default
    if not isinstance(value, str) or len(value.strip()) < _SHORTEST:
        raise ValueError(
            f"{source} is {value!r}, it must be a name of {_SHORTEST} characters or more."
        )
    return value.strip()


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


def _source(argument: str, given: Any, variable: str) -> tuple[str, Any]:
    """Return the value that counts and the name of where it comes from; an empty one is none."""
    if given is not None:
        return argument, given
    return variable, os.environ.get(variable, "").strip() or None
