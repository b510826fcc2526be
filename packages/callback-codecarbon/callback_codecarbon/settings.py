"""`MeterSettings`: what CodeCarbon is told, checked before a training begins."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TRUE: Final = ("1", "ON", "YES", "TRUE")
FALSE: Final = ("0", "OFF", "NO", "FALSE")

_CONFIG_FILE: Final = ".codecarbon.config"
_COUNTRY: Final = re.compile(r"[A-Z]{3}")
_MODES: Final = ("machine", "process")
_OURS: Final = ("offline", "country_iso_code", "measure_power_secs", "tracking_mode")


@dataclass(frozen=True)
class MeterSettings:
    """How to measure.

    Attributes:
        offline: Whether the country is known, so that nothing is looked up in the network.
        arguments: What CodeCarbon's tracker is made with.
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
        """Return the settings: what was given, or else what stands in environment variables.

        CodeCarbon reads its variables and its files itself; those of ours are checked here.

        Raises:
            ValueError: One is wrong.
        """
        country = _country(country_iso_code)
        is_offline = _flag("offline", offline, "CODECARBON_OFFLINE")
        if is_offline is None:
            is_offline = country is not None
        elif is_offline and country is None and not _known_otherwise(others):
            raise ValueError(
                "offline is asked for, and country_iso_code or CODECARBON_COUNTRY_ISO_CODE must "
                "say where: three letters, such as SWE."
            )
        if twice := sorted(set(_OURS) & others.keys()):
            raise ValueError(f"settings has {', '.join(twice)}, which is an argument of its own.")
        given = {
            "country_iso_code": country if is_offline else None,
            "measure_power_secs": _seconds(measure_power_secs),
            "tracking_mode": _mode(tracking_mode),
        }
        arguments = {name: value for name, value in given.items() if value is not None}
        return cls(is_offline, {**arguments, **others})


def _country(given: str | None) -> str | None:
    source, value = _source("country_iso_code", given, "CODECARBON_COUNTRY_ISO_CODE")
    if value is not None and not (isinstance(value, str) and _COUNTRY.fullmatch(value.upper())):
        raise ValueError(
            f"{source} is {value!r}, it must be the three letters of a country in ISO 3166, such "
            "as SWE."
        )
    return None if value is None else value.upper()


def _seconds(given: float | None) -> float | None:
    source, value = _source("measure_power_secs", given, "CODECARBON_MEASURE_POWER_SECS")
    try:
        seconds = None if value is None else float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if seconds is not None and not 0 < seconds < float("inf"):
        raise ValueError(f"{source} is {value!r}, it must be seconds, more than 0.")
    return seconds


def _mode(given: str | None) -> str | None:
    source, value = _source("tracking_mode", given, "CODECARBON_TRACKING_MODE")
    if value is not None and value not in _MODES:
        raise ValueError(f"{source} is {value!r}, it must be one of: {', '.join(_MODES)}.")
    return value


def _flag(argument: str, given: bool | None, variable: str) -> bool | None:
    source, value = _source(argument, given, variable)
    if isinstance(value, bool) or value is None:
        return value
    if source == variable and value.upper() in (*TRUE, *FALSE):
        return value.upper() in TRUE
    choices = ", ".join((*TRUE, *FALSE)) if source == variable else "True, False"
    raise ValueError(f"{source} is {value!r}, it must be one of: {choices}.")


def _source(argument: str, given: Any, variable: str) -> tuple[str, Any]:
    """Return the value that counts and the name of where it comes from; an empty one is none."""
    if given is not None:
        return argument, given
    return variable, os.environ.get(variable, "").strip() or None


def _known_otherwise(others: Mapping[str, Any]) -> bool:
    """Return whether it may be said elsewhere where the machine stands."""
    if "cloud_provider" in others or os.environ.get("CODECARBON_CLOUD_PROVIDER"):
        return True
    return any((place / _CONFIG_FILE).is_file() for place in (Path.home(), Path.cwd()))
