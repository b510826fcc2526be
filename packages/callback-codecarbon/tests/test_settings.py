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
    ("arguments", "says"),
    [
        ({"offline": True}, "CODECARBON_COUNTRY_ISO_CODE"),
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
