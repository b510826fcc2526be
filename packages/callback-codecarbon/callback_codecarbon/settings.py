"""`MeterSettings`: CodeCarbon's settings, checked before a training begins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from callback_core.tracking import config

_CONFIG_FILE: Final = ".codecarbon.config"
_OURS: Final = ("offline", "country_iso_code", "measure_power_secs", "tracking_mode")


@dataclass(frozen=True)
class MeterSettings:
    """How to measure.

    Attributes:
        offline: Whether to avoid the network, because the country is known.
        arguments: The arguments of CodeCarbon's tracker.
    """

    offline: bool
    arguments: Mapping[str, Any]

    @classmethod
    def read(
        cls,
        offline: bool | None,
        country_iso_code: str | None,
        measure_power_secs: float | None,
        tracking_mode: str | None,
        others: Mapping[str, Any],
    ) -> MeterSettings:
        """Return the settings from the arguments, or else from environment variables.

        CodeCarbon reads its other variables and its files itself.

        Raises:
            ValueError: A setting is invalid.
        """
        country = _country(country_iso_code)
        is_offline = config.flag("offline", offline, "CODECARBON_OFFLINE")
        if is_offline is None:
            is_offline = country is not None
        elif is_offline and country is None and not _may_know_location(others):
            raise ValueError(
                "offline is True, so country_iso_code or CODECARBON_COUNTRY_ISO_CODE must name the "
                "country: three letters, such as SWE."
            )
        if duplicates := sorted(set(_OURS) & others.keys()):
            raise ValueError(
                f"settings has {', '.join(duplicates)}, it must be passed as an argument instead."
            )
        given = {
            "country_iso_code": country if is_offline else None,
            "measure_power_secs": config.seconds(
                "measure_power_secs", measure_power_secs, "CODECARBON_MEASURE_POWER_SECS"
            ),
            "tracking_mode": config.choice(
                "tracking_mode", tracking_mode, "CODECARBON_TRACKING_MODE", ("machine", "process")
            ),
        }
        arguments = {name: value for name, value in given.items() if value is not None}
        return cls(is_offline, {**arguments, **others})


def _country(given: str | None) -> str | None:
    """Return the country's code in capital letters."""
    demand = "the three letters of a country in ISO 3166, such as SWE"
    variable = "CODECARBON_COUNTRY_ISO_CODE"
    country = config.matching("country_iso_code", given, variable, "[A-Za-z]{3}", demand)
    return None if country is None else country.upper()


def _may_know_location(others: Mapping[str, Any]) -> bool:
    """Return whether another setting, or a file of CodeCarbon's, may name the location."""
    if "cloud_provider" in others or os.environ.get("CODECARBON_CLOUD_PROVIDER"):
        return True
    return any((place / _CONFIG_FILE).is_file() for place in (Path.home(), Path.cwd()))
