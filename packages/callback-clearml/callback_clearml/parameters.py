"""Compares the parameters of the user's task with those of the training."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from callback_core.tracking import REDACTED, Redaction

logger = logging.getLogger(__name__)

NOT_USED: Final = " (not used)"
"""Ends the name of the section that keeps the values that a training did not use."""

_MOST_NAMED: Final = 5


def in_section(path: str, suffix: str) -> str:
    """Return `section/name` with the section's name extended by `suffix`."""
    section, _, name = path.partition("/")
    return f"{section}{suffix}/{name}"


def as_text(value: Any) -> str:
    """Return a parameter's value as ClearML stores it."""
    return json.dumps(value, default=str) if isinstance(value, (dict, list)) else str(value)


def unused_values(shown: Mapping[str, str], used: Mapping[str, Any]) -> dict[str, str]:
    """Return the values that a task's page shows and the training does not use, by path.

    Secrets are removed.

    Args:
        shown: The parameters of the task, as text.
        used: The parameters of the training.
    """
    without_secrets: dict[str, str] = Redaction().of(dict(shown))
    return {
        path: without_secrets[path]
        for path, value in used.items()
        if path in shown and value != REDACTED and not _is_same(without_secrets[path], value)
    }


def warn_of_unused(task: str, unused: Mapping[str, str], used: Mapping[str, Any]) -> None:
    """Log one warning that names the values of a task that the training does not use."""
    if not unused:
        return
    named = [f"{path} is {value}, not {as_text(used[path])}" for path, value in unused.items()]
    more = f"; and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    logger.warning(
        "ClearML task %s has values that this training does not use (%s%s). The task now shows "
        "those of the training, and keeps its own in sections that end in '%s'. To train with "
        "them, connect the arguments to the task before you make the Trainer: see the README of "
        "callback-clearml.",
        task,
        "; ".join(named[:_MOST_NAMED]),
        more,
        NOT_USED.strip(),
    )


def _is_same(shown: str, value: Any) -> bool:
    """Return whether a page's text stands for `value`."""
    if value is None:
        return shown.lower() in ("none", "null", "")
    if isinstance(value, bool):
        return shown.lower() == str(value).lower()
    if isinstance(value, (int, float)):
        with suppress(ValueError):
            return float(shown) == value
    if isinstance(value, (dict, list)):
        with suppress(ValueError):
            return bool(json.loads(shown) == value)
    return shown == as_text(value)
