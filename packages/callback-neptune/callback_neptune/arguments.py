"""Reads the arguments of `NeptuneCallback`, and keeps private ones out of files."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from callback_core.tracking import Redaction, config

MODES: Final = ("async", "sync", "offline", "debug")

CHECKPOINTS: Final = ("same", "last", "best")

CAPTURES: Final = (
    "capture_stdout",
    "capture_stderr",
    "capture_hardware_metrics",
    "capture_traceback",
)
"""Neptune's arguments that monitor the current process."""

QUIET: Final[dict[str, Any]] = {
    **dict.fromkeys(CAPTURES, False),
    "git_ref": False,
    "source_files": [],
}
"""Turns off what Neptune collects automatically."""

_RUN_ARGUMENTS: Final = (
    *QUIET,
    "async_lag_callback",
    "async_lag_threshold",
    "async_no_progress_callback",
    "async_no_progress_threshold",
    "custom_run_id",
    "dependencies",
    "description",
    "fail_on_exception",
    "flush_period",
    "mode",
    "monitoring_namespace",
    "proxies",
    "tags",
    "with_id",
)
"""The arguments of `neptune.init_run`, except `api_token`, `project` and `name`."""

_SHOWN: Final = ("description", "tags")
"""The arguments that everybody with access to the run can read."""

_CUSTOM_RUN_ID_LENGTH: Final = 36

_PRIVATE: Final[dict[str, dict[str, Any]]] = {}


def mode(given: str | None) -> str | None:
    """Return Neptune's connection mode; `None` if it is not set."""
    return config.choice("mode", given, "NEPTUNE_MODE", MODES)


def api_token(given: str | None) -> str | None:
    """Return the token. The error about an invalid one does not show it.

    Raises:
        ValueError: The token is invalid.
    """
    token = config.text("api_token", given, "NEPTUNE_API_TOKEN")
    if token is None or token == "ANONYMOUS":
        return token
    try:
        content = json.loads(base64.b64decode(token))
    except ValueError:
        content = None
    if not isinstance(content, Mapping) or "api_address" not in content:
        source = "NEPTUNE_API_TOKEN" if given is None else "api_token"
        raise ValueError(
            f"{source} is not an API token of Neptune, it must be the token that the web app "
            "shows, or 'ANONYMOUS'."
        )
    return token


def project(given: str | None) -> str | None:
    """Return the name of the project."""
    demand = "the name of a project, such as 'workspace-name/project-name'"
    return config.matching("project", given, "NEPTUNE_PROJECT", r"([^/]+/)?[^/]+", demand)


def namespace(given: str) -> str:
    """Return the base namespace, without leading and trailing slashes."""
    demand = "a name, such as 'finetuning' or 'models/first'"
    found = config.matching("base_namespace", given, None, r"/*[^/](.*[^/])?/*", demand)
    return (found or "finetuning").strip("/")


def custom_run_id(given: str | None) -> str | None:
    """Return the user's own id of the run. All trainings with the same id share the run."""
    demand = f"at most {_CUSTOM_RUN_ID_LENGTH} characters"  # Neptune would ignore a longer id
    pattern = f"(?s:.{{1,{_CUSTOM_RUN_ID_LENGTH}}})"
    return config.matching("custom_run_id", given, "NEPTUNE_CUSTOM_RUN_ID", pattern, demand)


def run_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `neptune.init_run`.

    Raises:
        TypeError: `neptune.init_run` has no such argument.
        ValueError: Two arguments contradict each other.
    """
    for name in given:
        if name not in _RUN_ARGUMENTS:
            raise TypeError(
                f"Neither NeptuneCallback nor neptune.init_run has an argument {name!r}. "
                f"neptune.init_run has: {', '.join(sorted(_RUN_ARGUMENTS))}."
            )
    if given.get("with_id") is not None and given.get("custom_run_id") is not None:
        raise ValueError("with_id and custom_run_id both name a run. Pass only one of them.")
    redaction = Redaction()
    shown = {name: redaction.of(given[name], name) for name in _SHOWN if given.get(name)}
    return {**given, **shown}


def storable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that may be written to a file: JSON values without secrets."""
    redaction = Redaction()
    return {
        name: value
        for name, value in arguments.items()
        if _is_plain(value) and redaction.of(value, name) == value
    }


def store_private(private: dict[str, Any], key: str | None) -> str:
    """Keep arguments that must not leave this process, and return their key.

    Args:
        private: The arguments.
        key: The key to use again; `None` for a new one. The key may be written to a file.
    """
    key = key or uuid4().hex
    _PRIVATE[key] = private
    return key


def load_private(key: str | None) -> dict[str, Any]:
    """Return the private arguments; an empty mapping in another process."""
    return {} if key is None else _PRIVATE.get(key, {})


def _is_plain(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
