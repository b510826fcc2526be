"""What the callback is told, and what happens where CodeCarbon is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callback_codecarbon import CodeCarbonCallback
from callback_contract.testing import missing
from callback_core import get_available_reporting_integrations
from trainer_torch.testing import small_trainer


def test_without_settings_it_is_codecarbons_own_online_tracker() -> None:
    settings = CodeCarbonCallback().settings
    assert (settings.offline, dict(settings.arguments)) == (False, {})


def test_a_country_makes_it_offline_unless_it_is_to_be_online(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = CodeCarbonCallback(country_iso_code="swe").settings
    assert (settings.offline, settings.arguments) == (True, {"country_iso_code": "SWE"})
    monkeypatch.setenv("CODECARBON_COUNTRY_ISO_CODE", "FRA")
    assert CodeCarbonCallback().settings.arguments == {"country_iso_code": "FRA"}
    online = CodeCarbonCallback(offline=False).settings
    assert (online.offline, dict(online.arguments)) == (False, {})


@pytest.mark.parametrize(
    ("value", "meant"),
    [(v, True) for v in ("1", "on", "Yes", "TRUE")]
    + [(v, False) for v in ("0", "off", "No", "false")],
)
def test_the_flag_of_the_environment_is_read_in_any_case(
    value: str, meant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODECARBON_OFFLINE", value)
    assert CodeCarbonCallback(country_iso_code="SWE").settings.offline is meant


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODECARBON_MEASURE_POWER_SECS", "30")
    monkeypatch.setenv("CODECARBON_TRACKING_MODE", "machine")
    arguments = CodeCarbonCallback(measure_power_secs=2, tracking_mode="process").settings.arguments
    assert arguments == {"measure_power_secs": 2.0, "tracking_mode": "process"}
    arguments = CodeCarbonCallback().settings.arguments
    assert arguments == {"measure_power_secs": 30.0, "tracking_mode": "machine"}


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("CODECARBON_OFFLINE", "maybe", "1, ON, YES, TRUE, 0, OFF, NO, FALSE"),
        ("CODECARBON_COUNTRY_ISO_CODE", "Sweden", "three letters"),
        ("CODECARBON_MEASURE_POWER_SECS", "often", "seconds"),
        ("CODECARBON_MEASURE_POWER_SECS", "0", "seconds"),
        ("CODECARBON_TRACKING_MODE", "gpu", "machine, process"),
    ],
)
def test_a_wrong_variable_is_refused_with_its_name_its_value_and_the_choices(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable) as refused:
        CodeCarbonCallback()
    assert says in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"offline": "yes"}, "offline is 'yes'"),
        ({"offline": True}, "CODECARBON_COUNTRY_ISO_CODE"),
        ({"country_iso_code": 46}, "country_iso_code is 46"),
        ({"measure_power_secs": -1}, "measure_power_secs is -1"),
        ({"tracking_mode": "gpu"}, "tracking_mode is 'gpu'"),
        ({"stop_limit": -1}, "stop_limit is -1"),
        ({"settings": {"tracking_mode": "process"}}, "tracking_mode"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=r"must|argument of its own") as refused:
        CodeCarbonCallback(**arguments)
    assert says in str(refused.value)


def test_the_place_may_be_said_in_codecarbons_file(tmp_path: Path) -> None:
    (tmp_path / ".codecarbon.config").write_text("[codecarbon]\ncountry_iso_code = SWE\n")
    assert CodeCarbonCallback(offline=True).settings.offline


def test_the_package_is_found_by_its_name() -> None:
    assert "codecarbon" in get_available_reporting_integrations()


def test_where_codecarbon_is_missing_training_goes_on_and_the_install_that_mends_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path, CodeCarbonCallback)
    with missing("codecarbon"):
        made.train()
    assert made.state.global_step == 12
    assert "pip install codecarbon" in caplog.text
