"""Settings with rules of MLflow's own."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from posixpath import normpath
from typing import Any, Final

from callback_core.tracking import config

logger = logging.getLogger(__name__)

_TAG: Final = re.compile(r"[\w.\- /:]{1,250}")

_TAG_LENGTH: Final = 8000
"""The most characters of a tag's value, from `mlflow.utils.validation`."""


_NO_PATHS: Final = ("databricks", "uc")
"""Names of servers that look like relative paths."""


def read_run_id(argument: str, given: str | None, variable: str | None) -> str | None:
    """Return the id of a run.

    Raises:
        ValueError: It is not a valid id in MLflow.
    """
    demand = "the id of a run: letters, digits, _ and -, at most 256 of them"
    return config.matching(argument, given, variable, r"[a-zA-Z0-9][\w-]{0,255}", demand)


def absolute_uri(uri: str) -> str:
    """Return a tracking URI that means the same in every working directory.

    MLflow reads relative paths, as in `sqlite:///mlflow.db`, `file:mlruns` and `./mlruns`, from the
    working directory of whoever opens them.
    """
    scheme, colon, rest = uri.partition(":")
    if scheme.partition("+")[0] == "sqlite" and rest.startswith("///") and ":memory:" not in rest:
        return f"{scheme}:///{os.path.abspath(rest[3:])}"
    if scheme == "file" and not rest.startswith("/"):
        return Path(os.path.abspath(rest)).as_uri()
    is_path = not colon and uri and not uri.startswith(_NO_PATHS)
    return os.path.abspath(uri) if is_path else uri


def read_tags(
    argument: str, given: Mapping[str, Any] | None, variable: str | None
) -> dict[str, str]:
    """Return the values of tags, by name. One that is too long for MLflow is cut, with a warning.

    Raises:
        ValueError: It is neither a mapping nor a JSON object, or a name is invalid in MLflow.
    """
    found = config.mapping(argument, given, variable)
    for name in found:
        if not (_TAG.fullmatch(name) and normpath(name) == name):
            raise ValueError(
                f"{config.setting(argument, given, variable).source} has a tag {name!r}, it must "
                "be a name of letters, digits and ._-:/ or spaces, at most 250 of them."
            )
    tags = {name: _as_text(part) for name, part in found.items()}
    if long := [name for name, value in tags.items() if len(value) > _TAG_LENGTH]:
        logger.warning(
            "MLflow takes %d characters of a tag, so these are cut: %s.",
            _TAG_LENGTH,
            ", ".join(long),
        )
    return {name: value[:_TAG_LENGTH] for name, value in tags.items()}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
