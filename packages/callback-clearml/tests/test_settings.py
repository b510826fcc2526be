"""Settings of the callback, and training without ClearML installed."""

from __future__ import annotations

from typing import Any

import pytest

from callback_clearml import ClearMLCallback, ClearMLTracker
from callback_contract.testing import missing
from callback_core import get_available_reporting_integrations


@pytest.mark.parametrize(("argument", "value"), [("delivery", "later"), ("flush_limit", -1)])
def test_an_error_names_the_invalid_argument_and_its_value(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument) as refused:
        ClearMLCallback(**{argument: value})
    assert repr(value) in str(refused.value)


def test_settings_make_an_equal_tracker() -> None:
    settings = ClearMLTracker(project_name="mine", log_model=True).settings()
    assert settings is not None
    assert ClearMLTracker(**settings).settings() == settings


def test_the_entry_point_is_registered() -> None:
    assert "clearml" in get_available_reporting_integrations()


def test_without_its_sdk_the_callback_is_refused_when_it_is_made() -> None:
    with missing("clearml"), pytest.raises(ModuleNotFoundError) as refused:
        ClearMLCallback()
    assert refused.value.name == "clearml"
    assert "ClearMLCallback" in str(refused.value)
    assert "pip install clearml" in str(refused.value)
