"""What `NeptuneCallback` is given: reading it, and what of it may leave this process."""

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
"""By which Neptune watches the process that it runs in."""

QUIET: Final[dict[str, Any]] = {
    **dict.fromkeys(CAPTURES, False),
    "git_ref": False,
    "source_files": [],
}
"""What Neptune collects by itself, and is not asked to."""

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
"""What `neptune.init_run` knows beside `api_token`, `project` and `name`."""

_CUSTOM_RUN_ID_LENGTH: Final = 36

_KEPT: Final[dict[str, dict[str, Any]]] = {}


def mode(given: str | None) -> str | None:
    """Return how Neptune is talked to; `None` where nothing is said."""
    return config.choice("mode", given, "NEPTUNE_MODE", MODES)


def api_token(given: str | None) -> str | None:
    """Return the token, without a word about what it is where it is wrong."""
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
            f"{source} is no API token of Neptune, it must be the one that its web app shows, "
            "or 'ANONYMOUS'."
        )
    return token


def project(given: str | None) -> str | None:
    """Return the name of the project."""
    demand = "the name of a project, such as 'workspace-name/project-name'"
    return config.matching("project", given, "NEPTUNE_PROJECT", r"([^/]+/)?[^/]+", demand)


def namespace(given: str) -> str:
    """Return where in a run everything goes, without slashes around it."""
    demand = "a name, such as 'finetuning' or 'models/first'"
    found = config.matching("base_namespace", given, None, r"/*[^/](.*[^/])?/*", demand)
    return (found or "finetuning").strip("/")


def custom_run_id(given: str | None) -> str | None:
    """Return what the user calls the run, in which all who call it so take part."""
    demand = f"at most {_CUSTOM_RUN_ID_LENGTH} characters"  # Neptune would ignore a longer one
    pattern = f"(?s:.{{1,{_CUSTOM_RUN_ID_LENGTH}}})"
    return config.matching("custom_run_id", given, "NEPTUNE_CUSTOM_RUN_ID", pattern, demand)


def run_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `neptune.init_run`.

    Raises:
        TypeError: It has no such argument.
        ValueError: Two contradict each other.
    """
    for name in given:
        if name not in _RUN_ARGUMENTS:
            raise TypeError(
                f"NeptuneCallback has no argument {name!r}, and neither has neptune.init_run. It "
                f"has: {', '.join(sorted(_RUN_ARGUMENTS))}."
            )
    if given.get("with_id") is not None and given.get("custom_run_id") is not None:
        raise ValueError(
            "with_id and custom_run_id both name a run; only one of them can be given."
        )
    return dict(given)


def elsewhere(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `arguments` that may be written to a file: plain ones without secrets."""
    redaction = Redaction()
    return {
        name: value
        for name, value in arguments.items()
        if _is_plain(value) and redaction.of(value, name) == value
    }


def keep(private: dict[str, Any], key: str | None) -> str:
    """Keep what does not leave this process under `key`, or a new one, which may; return it."""
    key = key or uuid4().hex
    _KEPT[key] = private
    return key


def kept(key: str | None) -> dict[str, Any]:
    """Return what was kept; nothing in another process."""
    return {} if key is None else _KEPT.get(key, {})


def _is_plain(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
