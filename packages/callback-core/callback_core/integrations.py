"""Finding the tracker packages that are installed, through the entry points that they declare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP: Final = "callback_core.integrations"
"""A package offers its callback class here, under the name that `report_to` takes."""

# Where transformers' name for `report_to` is not that of the package.
_DISTRIBUTIONS: Final = {"azure_ml": "callback-azureml", "comet_ml": "callback-comet"}


def get_available_reporting_integrations() -> list[str]:
    """Return the names that `report_to` takes in this environment, sorted."""
    return sorted(_entry_points())


def get_reporting_integration_callbacks(report_to: str | Iterable[str] | None) -> list[type[Any]]:
    """Return the callback classes of the integrations that `report_to` names, in its order.

    A class that another one of them extends is left out: that one does its work, too.

    Args:
        report_to: A name or several; `"all"` is every integration that is installed, `"none"` and
            `None` no one.

    Raises:
        ValueError: A name that no installed package offers.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    if names in ([], ["none"]):
        return []
    found = _entry_points()
    if names == ["all"]:
        names = sorted(found)
    for name in names:
        if name not in found:
            raise ValueError(
                f"report_to names {name!r}, which is not installed. Installed: "
                f"{', '.join(sorted(found)) or 'none'}. Install it with: pip install "
                f"{_DISTRIBUTIONS.get(name, f'callback-{name}')}"
            )
    callbacks: list[type[Any]] = [found[name].load() for name in dict.fromkeys(names)]
    return [
        callback
        for callback in callbacks
        if not any(other is not callback and issubclass(other, callback) for other in callbacks)
    ]


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import (
        entry_points,
    )  # here, because it takes as long as all of callback_core to import

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
