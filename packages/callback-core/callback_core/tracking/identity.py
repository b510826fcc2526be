"""The identity of a tracker: its class and its settings, from which another process makes it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from callback_core.tracking.tracker import Tracker


def identity_of(tracker: Tracker) -> dict[str, Any]:
    """Return the tracker's identity: `made_by`, its class, and `settings`."""
    kind = type(tracker)
    return {
        "made_by": f"{kind.__module__}:{kind.__qualname__}",
        "settings": tracker.settings(),
    }


def check_identity(tracker: Tracker) -> None:
    """Refuse a tracker that another process cannot make.

    Raises:
        ValueError: The tracker is bound to this process, or its class cannot be imported.
    """
    kind = type(tracker)
    if tracker.settings() is None:
        raise ValueError(
            f"{kind.__name__} got an object that only this process has, so another process cannot "
            "deliver to it. Choose another delivery than 'process'."
        )
    if kind.__module__ == "__main__" or "<" in kind.__qualname__:
        raise ValueError(
            f"{kind.__name__} cannot be imported by another process. Put the class at the top of a "
            "module, or choose another delivery than 'process'."
        )


def make_tracker(identity: Mapping[str, Any], new_run: bool = False) -> Tracker:
    """Return a new tracker with this identity.

    Args:
        identity: The identity.
        new_run: Whether to leave out the settings that name a run to continue.

    Raises:
        ValueError: The tracker was bound to its process, or its class cannot be imported here.
    """
    made_by, settings = identity["made_by"], identity["settings"]
    if settings is None:
        raise ValueError(f"{made_by} was bound to its process and cannot be made again")
    module, _, name = made_by.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{made_by} cannot be imported here: {error}") from error
    named_by = found.named_by if new_run else ()
    tracker: Tracker = found(**{name: settings[name] for name in settings if name not in named_by})
    return tracker
