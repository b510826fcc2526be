"""Finds the installed tracker packages through the entry points that they declare.

An *integration* is a callback class that such an entry point names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP: Final = "callback_core.integrations"
"""The group in which a package offers its callback class, under the name for `report_to`."""

_PACKAGES: Final = {
    "azure_ml": "callback-azureml",
    "clearml": "callback-clearml",
    "codecarbon": "callback-codecarbon",
    "comet_ml": "callback-comet",
    "dagshub": "callback-dagshub",
    "flyte": "callback-flyte",
    "mlflow": "callback-mlflow",
    "neptune": "callback-neptune",
    "tensorboard": "callback-tensorboard",
    "wandb": "callback-wandb",
}
"""The names that transformers' `report_to` takes, with the packages to install for them."""


def get_available_reporting_integrations() -> list[str]:
    """Return the names that `report_to` takes in this environment, sorted."""
    return sorted(_entry_points())


class NotConfigured(RuntimeError):
    """An integration lacks a setting, such as a key or an address.

    `report_to="all"` skips an integration whose constructor raises this. The end of training does
    not wait for a tracker whose `open` raises this.
    """


def get_reporting_integration_callbacks(report_to: str | Iterable[str] | None) -> list[type[Any]]:
    """Return the callback classes of the integrations that `report_to` names, in its order.

    A class is left out if another one extends it, because that one does its work too.

    Args:
        report_to: One name or several. `"all"` is every installed integration; `"none"` and `None`
            are none.

    Raises:
        ValueError: No installed package offers a name.
    """
    return _without_those_extended(_named(_names(report_to)))


def make_reporting_integration_callbacks(
    report_to: str | Iterable[str] | None, beside: Iterable[Any] = ()
) -> list[Any]:
    """Return a callback of each class that `get_reporting_integration_callbacks` returns.

    With `"all"`, an integration that is not configured or lacks its SDK is left out, and a warning
    names it. One that is among the callbacks `beside` these is left out too, because it would
    record twice.

    Args:
        report_to: The integrations, as for `get_reporting_integration_callbacks`.
        beside: The callbacks, or classes of them, that the user adds.

    Raises:
        ValueError: No installed package offers a name, a setting is wrong, or a name stands for one
            of the callbacks `beside` these.
        NotConfigured: An integration that `report_to` names is not configured.
        ModuleNotFoundError: An integration that `report_to` names lacks its SDK.
    """
    names, made = _names(report_to), {}
    classes = _named(names)
    for one in [one for one in classes if _is_among(one, beside)]:
        if names != ["all"]:
            raise ValueError(
                f"report_to names {one.__name__}, and the callbacks have one too, so everything "
                "would be recorded twice. Keep one of the two."
            )
        classes.remove(one)
    while missing := [one for one in _without_those_extended(classes) if one not in made]:
        for one in missing:
            try:
                made[one] = one()
            except (NotConfigured, ModuleNotFoundError) as error:
                if names != ["all"]:
                    raise
                logger.warning("%s is not used: %s", one.__name__, error)
                classes.remove(one)  # so that the class that it extends may be used
    return [made[one] for one in classes if one in made]


def _is_among(one: type[Any], callbacks: Iterable[Any]) -> bool:
    classes = (item if isinstance(item, type) else type(item) for item in callbacks)
    return any(issubclass(found, one) for found in classes)


def _names(report_to: str | Iterable[str] | None) -> list[str]:
    return [report_to] if isinstance(report_to, str) else list(report_to or [])


def _named(names: list[str]) -> list[type[Any]]:
    if names in ([], ["none"]):
        return []
    found = _entry_points()
    if names == ["all"]:
        names = sorted(found)
    for name in names:
        if name not in found:
            raise ValueError(
                f"report_to names {name!r}, which is not installed. Installed: "
                f"{', '.join(sorted(found)) or 'none'}. {_advice(name, found)}"
            )
    return [found[name].load() for name in dict.fromkeys(names)]


def _advice(name: str, installed: Iterable[str]) -> str:
    """Return what to do about a name that no installed package offers."""
    if name in _PACKAGES:
        return f"In an environment that pip manages, install it: pip install {_PACKAGES[name]}"
    if "," in name:
        return f"Pass several names as a list: {[part.strip() for part in name.split(',')]}"
    from difflib import get_close_matches  # here, because only an error needs it

    nearest = get_close_matches(name, {*_PACKAGES, *installed}, n=1)
    return f"Did you mean {nearest[0]!r}?" if nearest else "Check the name."


def _without_those_extended(classes: list[type[Any]]) -> list[type[Any]]:
    return [
        one
        for one in classes
        if not any(other is not one and issubclass(other, one) for other in classes)
    ]


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import (
        entry_points,
    )  # here, because it takes as long as all of callback_core to import

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
