"""The file of a `TrainerState`: standard JSON, one field a line and one log a line.

Standard JSON knows neither NaN nor infinities. They are written as `{"__float__": "NaN"}`,
`{"__float__": "Infinity"}` and `{"__float__": "-Infinity"}`, and read back as floats. So that data
which looks like that is not taken for it, a key that is `__float__`, with any number of underscores
behind it, gets one more underscore in the file, and loses it when read.
"""

from __future__ import annotations

import json
import math
import os
import re
from contextlib import suppress
from typing import Any, Final

_MARKER: Final = '"__float__'
_NOT_FINITE: Final = ("NaN", "Infinity", "-Infinity")  # as json writes them
# The last alternative skips strings, so that the others match outside of them alone. It is not
# compiled here, since that would slow down every import and few trainings need it.
_TOKENS: Final = r'(?P<float>NaN|-?Infinity)|(?P<key>"__float___*)":|"[^"\\]*(?:\\.[^"\\]*)*"'


def write_fields(json_path: str | os.PathLike[str], values: dict[str, Any]) -> None:
    """Write `values`, fields by their names, to `json_path`, which is whole at any time.

    Raises:
        TypeError: A value is of a type that JSON does not have; it says which value.
        ValueError: A value contains itself, or is nested too deeply or too long to be written.
    """
    lines = (
        f"{_standard(json.dumps(name) + ':')} {_encoded(value, name)}"
        for name, value in sorted(values.items())
    )
    _write_atomically(json_path, "{\n" + ",\n".join(lines) + "\n}\n")


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
        raise ValueError(f"{json_path} holds no trainer state: it is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{json_path} holds no trainer state: it is JSON, but no object")
    return content


def _write_atomically(json_path: str | os.PathLike[str], text: str) -> None:
    """Put `text` into the file `json_path`, which holds the old or the new text at any time."""
    path = os.path.realpath(json_path)  # a link stays one, and what it points to is replaced
    beside = f"{path}.{os.urandom(6).hex()}.tmp"
    try:
        with open(beside, "x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        raise


def snapshot(value: Any, name: str) -> Any:
    """Return a copy of `value`, called `name`, as it will be read from the file.

    Raises:
        TypeError: It holds something of a type that JSON does not have; it says where.
        ValueError: It contains itself, or is nested too deeply or too long to be written.
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
    # json's own indentation is written in Python and slow. The encoder breaks the line after every
    # comma instead. Only its separators hold line breaks (json escapes those of strings), so that
    # the ones before a key, or before any string, can be taken back.
    text = text.replace(',\n"', ', "')
    if text.startswith("[{"):
        text = f"[\n{text[1:-1]}\n]"
    return _standard(text)


def _scalar(value: Any) -> Any:
    """Return the number that `value`, of numpy, torch or the like, holds."""
    name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    shape = getattr(value, "shape", None)
    if shape is None or not hasattr(value, "item"):
        raise TypeError(f"it is a {name}")
    if math.prod(shape) != 1:
        raise TypeError(f"it is a {name} of shape {tuple(shape)}, not a single number")
    try:
        item = value.item()
    except Exception as error:  # such as that of a tensor on torch's device "meta"
        raise TypeError(f"it is a {name} that does not tell its value: {error}") from error
    if type(item) is not type(value):
        return item
    # numpy's longdouble answers with itself, because Python has no such type; so does its complex.
    if not hasattr(item, "is_integer"):
        raise TypeError(f"it is a {name}")
    return float(item)


_ENCODER: Final = json.JSONEncoder(separators=(",\n", ": "), default=_scalar)


def _place_of_fault(value: Any, levels: int = 8) -> str:
    """Return where in `value` there is what cannot be written, as indices and keys."""
    # The levels are enough for logs, and an end where something contains itself.
    if levels and isinstance(value, (dict, list, tuple)):
        for key, element in value.items() if isinstance(value, dict) else enumerate(value):
            try:
                _ENCODER.encode(element)
            except (TypeError, ValueError, RecursionError):
                return f"[{key!r}]{_place_of_fault(element, levels - 1)}"
    return ""


def _standard(text: str) -> str:
    """Return `text`, of `_ENCODER`, with floats and keys as the module's docstring says."""
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
    """Return what `found`, an object in the file, stands for: the reverse of `_standard`."""
    if len(found) == 1 and found.get("__float__") in _NOT_FINITE:
        return float(found["__float__"])
    return {
        key[:-1] if key.startswith("__float___") and not key[9:].strip("_") else key: value
        for key, value in found.items()
    }
