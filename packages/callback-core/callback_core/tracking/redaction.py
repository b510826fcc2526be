"""Keeps secrets out of everything that leaves the process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

VARIABLE: Final = "CALLBACKS_REDACT"
"""The environment variable with further names of secrets, separated by commas."""

REDACTED: Final = "[redacted]"

# Matches names in lower case, with a space between their words.
_SECRET: Final = re.compile(
    r"\b(?:secrets?|pass(?:words?|wd|phrase)|credentials?|token|apikeys?|authorization|bearer|"
    r"(?:(?:access|auth|api|hub|refresh|secret|bearer) tokens)|"
    r"(?:access|account|api|auth|encryption|private|secret|signing|ssh) keys?)$"
)
_OF_A_TOKENIZER: Final = re.compile(
    r"\b(?:audio|bos|boundary|class|cls|decoder|end|eos|eot|forced|image|mask|pad|padding|sep|"
    r"special|start|stop|suppress|unk|unknown|video)\b.*token$"
)
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_USER_INFO: Final = re.compile(r"(?<=://)(?!git@)[^/\s?#]+@")
_ASSIGNED: Final = re.compile(
    r"""([A-Za-z][\w-]*)(['"]?\s?[=:]\s?)("[^"]*"|'[^']*'|"""
    r"""(?:(?:Bearer|Basic) )?[^\s'",;&)}\]]+)"""
)
_QUERY: Final = re.compile(r"(?i)([?&][\w-]*(?:token|key|secret|password|signature|sig)=)[^&\s#]+")
_KNOWN_FORMS: Final = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|glpat-[\w-]{20,}|sk-[\w-]{20,}|"
    r"xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})"
)


class Redaction:
    """Removes secrets from values, by their names and by their form.

    A string is a secret if the last words of its name say so: `hub_token` and `apiKey`, but neither
    `pad_token` nor `num_tokens`. In any other string, these are removed: the user and the password
    of a URL, secrets in its query, values assigned to such a name (`api_key=…`), and keys of a
    known form. A value that is neither string, number nor container is converted to a string.

    Args:
        names: Further names, in upper or lower case, whose values are secrets whatever their form.
            The names in the environment variable `CALLBACKS_REDACT` are added.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        given = os.environ.get(VARIABLE, "").split(",")
        self._names = {name.strip().lower() for name in (*names, *given) if name.strip()}

    def extend(self, names: Iterable[str]) -> None:
        """Add further names."""
        self._names.update(name.strip().lower() for name in names)

    def of(self, value: Any, name: str = "") -> Any:
        """Return `value`, which has this name, without secrets, even inside containers."""
        if name and name.lower() in self._names:
            return REDACTED
        if isinstance(value, str):
            return REDACTED if value and _is_secret(name) else scrubbed(value)
        if isinstance(value, Mapping):
            return {str(key): self.of(part, str(key)) for key, part in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.of(part, name) for part in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.of(str(value), name)  # JSON would have it so


def scrubbed(text: str) -> str:
    """Return `text` without parts that look like secrets."""
    text = _USER_INFO.sub(f"{REDACTED}@", text)
    text = _ASSIGNED.sub(_without_value, text)
    return _KNOWN_FORMS.sub(REDACTED, _QUERY.sub(rf"\g<1>{REDACTED}", text))


def _without_value(found: re.Match[str]) -> str:
    """Return `name=value` or `"name": value` without the value if that is a secret."""
    name, sign, value = found.groups()
    quote = value[0] if value[0] in "'\"" else ""
    return f"{name}{sign}{quote}{REDACTED}{quote}" if _is_secret(name) else found[0]


def _is_secret(name: str) -> bool:
    words = " ".join(_WORD.findall(name)).lower()
    return _SECRET.search(words) is not None and _OF_A_TOKENIZER.search(words) is None
