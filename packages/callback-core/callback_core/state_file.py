"""The file of a `TrainerState`: standard JSON, with a line for each field and for each log.

NaN and infinities are written as `_json` describes. Data that happens to look like such a mark
is kept apart: a key `__float__`, followed by any number of underscores, gets one more
underscore in the file, and loses it when the file is read.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Final

from callback_core._json import FLOAT, scalar, unmarked_float, write_atomically

_MARKER: Final = f'"{FLOAT}'
# The last alternative skips strings, so that the others match only outside of them. It is not
# compiled here: that would slow down every import, and few trainings need it.
_TOKENS: Final = r'(?P<float>NaN|-?Infinity)|(?P<key>"__float___*)":|"[^"\\]*(?:\\.[^"\\]*)*"'


def write_fields(json_path: str | os.PathLike[str], values: dict[str, Any]) -> None:
    """Write `values`, by the names of their fields, to `json_path` in one atomic step.

    Raises:
        TypeError: A value is of a type that JSON does not have; the message names the value.
        ValueError: A value contains itself, is nested too deeply, or is an integer with too many
            digits.
    """
    lines = (
        f"{_standard(json.dumps(name) + ':')} {_encoded(value, name)}"
        for name, value in sorted(values.items())
    )
    write_atomically(json_path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_fields(json_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields that `write_fields` or transformers wrote to `json_path`.

    Raises:
        ValueError: The file does not hold a JSON object.
    """
    try:
        with open(json_path, encoding="utf-8") as file:
            text = file.read()
        # The hook costs time for every object, and hardly a file needs it.
        content = json.loads(text, object_hook=_restored if _MARKER in text else None)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{json_path} holds no trainer state: it is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{json_path} holds no trainer state: it is JSON, but not an object")
    return content


def snapshot(value: Any, name: str) -> Any:
    """Return a copy of `value`, called `name`, as it will be read from the file.

    Raises:
        TypeError: It holds a value of a type that JSON does not have; the message says where.
        ValueError: It contains itself, is nested too deeply, or has an integer with too many
            digits.
    """
    return json.loads(_json(value, name))


def _json(value: Any, name: str) -> str:
    """Return `value`, called `name`, as JSON with a line break behind each comma."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        place = name + _place_of_fault(value)
        raise kind(f"{place} cannot be written as JSON: {error}") from error


def _encoded(value: Any, name: str) -> str:
    """Return `value`, of the field `name`, as standard JSON: a list with an element a line."""
    text = _json(value, name)
    # json indents in Python, which is slow. The encoder breaks the line after every comma instead.
    # Only separators hold line breaks, because json escapes those in strings. So those before a key
    # or any other string can be removed again.
    text = text.replace(',\n"', ', "')
    if text.startswith("[{"):
        text = f"[\n{text[1:-1]}\n]"
    return _standard(text)


_ENCODER: Final = json.JSONEncoder(separators=(",\n", ": "), default=scalar)


def _place_of_fault(value: Any, levels: int = 8) -> str:
    """Return the place in `value` that cannot be written, as indices and keys."""
    # The levels are enough for logs, and end the search in a value that contains itself.
    if levels and isinstance(value, (dict, list, tuple)):
        for key, element in value.items() if isinstance(value, dict) else enumerate(value):
            try:
                _ENCODER.encode(element)
            except (TypeError, ValueError, RecursionError):
                return f"[{key!r}]{_place_of_fault(element, levels - 1)}"
    return ""


def _standard(text: str) -> str:
    """Return `text`, from `_ENCODER`, with floats and keys as the module's docstring describes."""
    return "\n".join(
        re.sub(_TOKENS, _standard_token, line)
        if "NaN" in line or "Infinity" in line or _MARKER in line
        else line
        for line in text.split("\n")
    )


def _standard_token(found: re.Match[str]) -> str:
    if found["float"]:
        return f'{{{_MARKER}": "{found["float"]}"}}'
    return f'{found["key"]}_":' if found["key"] else found[0]


def _restored(found: dict[str, Any]) -> Any:
    """Return the value for which an object in the file stands: the reverse of `_standard`."""
    number = unmarked_float(found)
    if number is not None:
        return number
    return {
        key[:-1] if key.startswith("__float___") and not key[9:].strip("_") else key: value
        for key, value in found.items()
    }
