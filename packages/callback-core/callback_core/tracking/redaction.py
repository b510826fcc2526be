"""Keeps secrets out of everything that leaves the process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

from callback_core.tracking.scrubbing import REDACTED, is_secret, scrubbed
from callback_core.tracking.secret_names import Verdict, describes_secrets, verdict

VARIABLE: Final = "CALLBACKS_REDACT"
"""The environment variable with further names of secrets, separated by commas."""


class Redaction:
    """Removes secrets from values, by their names and by their form.

    A string is a secret if its name says so: `hub_token`, `wandbKey` and `db_pwd`, but neither
    `pad_token` nor `key_file`. In any other string, these are removed: the user and the password
    of a URL, secrets in its query, values assigned to such a name (`api_key=…`, `--api-key …`),
    addresses of webhooks, private keys, and keys of a known form. A value that is neither string,
    number nor container is converted to a string.

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

    def lists(self, name: str) -> bool:
        """Return whether `name` is one of the further names."""
        return bool(name) and name.lower() in self._names

    def of(self, value: Any, name: str = "") -> Any:
        """Return `value`, which has this name, without secrets, even inside containers."""
        return self._of(value, name, "")

    def _of(self, value: Any, name: str, owner: str) -> Any:
        """Return `value` without secrets.

        Args:
            value: The value.
            name: Its name.
            owner: The name of the container that has it, if that name is one of secrets.
        """
        if self.lists(name):
            return REDACTED
        if isinstance(value, str):
            return self._of_string(value, name, owner)
        if isinstance(value, Mapping):
            return self._of_mapping(value, owner if verdict(name) is Verdict.HARMLESS else name)
        if isinstance(value, (list, tuple, set, frozenset)):
            return self._of_items(list(value), name, owner)
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self._of(str(value), name, owner)  # JSON would have it so

    def _of_string(self, value: str, name: str, owner: str) -> str:
        if value and any(is_secret(one, value) for one in _names_of(name, owner)):
            return REDACTED
        if value[:1] in ("{", "[") and value[-1:] in ("}", "]"):
            try:
                parsed = json.loads(value)
                if (found := self._of(parsed, name, owner)) != parsed:
                    return json.dumps(found)
            except (ValueError, RecursionError):
                pass
        return scrubbed(value)

    def _of_mapping(self, value: Mapping[Any, Any], owner: str) -> dict[str, Any]:
        found = {scrubbed(str(key)): self._of(part, str(key), owner) for key, part in value.items()}
        named = next((value[key] for key in ("name", "key", "variable") if key in value), None)
        if isinstance(named, str) and "value" in found:  # as Kubernetes lists variables
            found["value"] = self._of(value["value"], named, owner)
        return found

    def _of_items(self, items: list[Any], name: str, owner: str) -> list[Any]:
        found = [self._of(item, name, owner) for item in items]
        for index, (before, item) in enumerate(pairwise(items), 1):
            if not isinstance(before, str) or not isinstance(item, (str, bytes)):
                continue
            is_flag = before.startswith("-") and not str(item).startswith("-")
            if is_flag or (len(items) == 2 and verdict(before) is Verdict.SECRET):
                found[index] = self._of(item, before, "")
        return found


def _names_of(name: str, owner: str) -> Iterator[str]:
    """Yield the names by which a part of a container may be a secret: `{"tokens": {"hf": …}}`."""
    yield name
    if owner:
        yield f"{owner} {name}"
        if not describes_secrets(name):
            yield f"{name} {owner}"
