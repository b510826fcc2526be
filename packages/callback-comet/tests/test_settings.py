"""Settings of the callback, and training without Comet's SDK installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callback_comet import CometCallback, CometTracker
from callback_contract.testing import missing
from callback_core import get_available_reporting_integrations
from trainer_torch.testing import small_trainer

KEY = "0123456789abcdef" * 2


def test_a_relative_directory_becomes_absolute_for_other_processes(tmp_path: Path) -> None:
    assert CometTracker(offline_directory="there").offline_directory == str(tmp_path / "there")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("COMET_MODE", "get", "COMET_EXPERIMENT_KEY"),
        ("COMET_AUTO_LOG_DISABLE", "please", "1, ON, YES, TRUE, 0, OFF, NO, FALSE"),
    ],
)
def test_an_error_names_the_invalid_variable_its_value_and_the_choices(
    variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable) as refused:
        CometCallback()
    assert expected in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize(("argument", "value"), [("delivery", "later"), ("flush_limit", -1)])
def test_an_error_names_the_invalid_argument_and_its_value(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument) as refused:
        CometCallback(**{argument: value})
    assert repr(value) in str(refused.value)


def test_settings_make_an_equal_tracker() -> None:
    settings = CometTracker(
        mode="OFFLINE", project_name="p", workspace="w", experiment_key=KEY, log_assets=False
    ).settings()
    assert settings is not None
    assert CometTracker(**settings).settings() == settings


@pytest.mark.parametrize(
    ("variable", "value"), [("COMET_MODE", "disabled"), ("COMET_AUTO_LOG_DISABLE", "1")]
)
def test_a_disabled_integration_does_nothing(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    made = small_trainer(tmp_path / "out", CometCallback, save_strategy="epoch")
    made.train()
    made.evaluate()
    assert not (tmp_path / "out" / "tracking").exists()


def test_the_entry_point_is_registered() -> None:
    assert "comet_ml" in get_available_reporting_integrations()


def test_without_its_sdk_the_callback_is_refused_when_it_is_made() -> None:
    with missing("comet_ml"), pytest.raises(ModuleNotFoundError) as refused:
        CometCallback()
    assert refused.value.name == "comet_ml"
    assert "CometCallback" in str(refused.value)
    assert "pip install comet_ml" in str(refused.value)
