"""Reading a setting: what was given, or else an environment variable, or else nothing."""

from __future__ import annotations

import os
import re
from typing import Any, Final

TRUE: Final = ("1", "ON", "YES", "TRUE")
FALSE: Final = ("0", "OFF", "NO", "FALSE")

MODES: Final = ("ONLINE", "OFFLINE", "DISABLED", "get_or_create", "create", "get")
"""Where to, as older versions of transformers' callback have it; which experiment, as newer do."""

_KEY: Final = re.compile(r"[a-zA-Z0-9]{32,50}")


def text(argument: str, given: str | None, variable: str) -> str | None:
    """Return a string.

    Raises:
        ValueError: It is none.
    """
    source, value = _source(argument, given, variable)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise ValueError(f"{source} is {value!r}, it must be a string that is not empty.")
    return value


def directory(argument: str, given: str | os.PathLike[str] | None, variable: str) -> str | None:
    """Return a directory by its whole path, which another process finds too.

    Raises:
        ValueError: It is no path.
    """
    path = os.fspath(given) if isinstance(given, os.PathLike) else given
    value = text(argument, path, variable)
    return None if value is None else os.path.abspath(os.path.expanduser(value))


def mode(argument: str, given: str | None, variable: str) -> str | None:
    """Return one of `MODES`, which may be written in any case.

    Raises:
        ValueError: It is none.
    """
    source, value = _source(argument, given, variable)
    for known in MODES:
        if value is None or (isinstance(value, str) and value.lower() == known.lower()):
            return None if value is None else known
    raise ValueError(f"{source} is {value!r}, it must be one of: {', '.join(MODES)}.")


def key(argument: str, given: str | None, variable: str) -> str | None:
    """Return the key of an experiment.

    Raises:
        ValueError: Comet has no keys like that.
    """
    source, value = _source(argument, given, variable)
    if value is not None and not (isinstance(value, str) and _KEY.fullmatch(value)):
        raise ValueError(f"{source} is {value!r}, it must be 32 to 50 letters and digits.")
    return value


def flag(argument: str, given: bool | None, variable: str) -> bool | None:
    """Return whether something is to be done; `None` where nothing is said.

    Raises:
        ValueError: It is neither true nor false.
    """
    source, value = _source(argument, given, variable)
    if isinstance(value, bool) or value is None:
        return value
    if source == variable and value.upper() in (*TRUE, *FALSE):
        return value.upper() in TRUE
    choices = ", ".join((*TRUE, *FALSE)) if source == variable else "True, False"
    raise ValueError(f"{source} is {value!r}, it must be one of: {choices}.")


def _source(argument: str, given: Any, variable: str) -> tuple[str, Any]:
    """Return the value that counts and the name of where it comes from; an empty one is none."""
    if given is not None:
        return argument, given
    return variable, os.environ.get(variable, "").strip() or None
