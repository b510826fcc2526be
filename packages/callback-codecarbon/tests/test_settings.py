"""Settings of the callback, and training without CodeCarbon installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callback_codecarbon import CodeCarbonCallback
from callback_contract.testing import missing
from callback_core import get_available_reporting_integrations


def test_the_default_is_codecarbons_online_tracker() -> None:
    settings = CodeCarbonCallback().settings
    assert (settings.offline, dict(settings.arguments)) == (False, {})


def test_a_country_makes_the_meter_offline_unless_online_is_requested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = CodeCarbonCallback(country_iso_code="swe").settings
    assert (settings.offline, settings.arguments) == (True, {"country_iso_code": "SWE"})
    monkeypatch.setenv("CODECARBON_COUNTRY_ISO_CODE", "FRA")
    assert CodeCarbonCallback().settings.arguments == {"country_iso_code": "FRA"}
    online = CodeCarbonCallback(offline=False).settings
    assert (online.offline, dict(online.arguments)) == (False, {})


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"offline": True}, "CODECARBON_COUNTRY_ISO_CODE"),
        ({"stop_limit": -1}, "stop_limit is -1"),
        ({"settings": {"tracking_mode": "process"}}, "tracking_mode"),
    ],
)
def test_an_invalid_argument_is_refused(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        CodeCarbonCallback(**arguments)


def test_codecarbons_file_may_name_the_country(tmp_path: Path) -> None:
    (tmp_path / ".codecarbon.config").write_text("[codecarbon]\ncountry_iso_code = SWE\n")
    assert CodeCarbonCallback(offline=True).settings.offline


def test_the_entry_point_is_registered() -> None:
    assert "codecarbon" in get_available_reporting_integrations()


def test_without_its_sdk_the_callback_is_refused_when_it_is_made() -> None:
    with missing("codecarbon"), pytest.raises(ModuleNotFoundError) as refused:
        CodeCarbonCallback()
    assert refused.value.name == "codecarbon"
    assert "CodeCarbonCallback" in str(refused.value)
    assert "pip install codecarbon" in str(refused.value)
