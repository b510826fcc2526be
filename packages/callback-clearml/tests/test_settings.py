"""What the callback is told, and what happens where ClearML is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callback_clearml import ClearMLCallback, ClearMLTracker
from callback_contract.testing import missing
from callback_core import get_available_reporting_integrations
from trainer_torch.testing import small_trainer


@pytest.mark.parametrize(("argument", "value"), [("delivery", "later"), ("flush_limit", -1)])
def test_a_wrong_argument_is_refused_with_its_name_and_value(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument) as refused:
        ClearMLCallback(**{argument: value})
    assert repr(value) in str(refused.value)


def test_settings_make_an_equal_tracker() -> None:
    settings = ClearMLTracker(project_name="mine", log_model=True).settings()
    assert settings is not None
    assert ClearMLTracker(**settings).settings() == settings


def test_the_package_is_found_by_its_name() -> None:
    assert "clearml" in get_available_reporting_integrations()


def test_where_clearml_is_missing_training_goes_on_and_the_install_that_mends_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path, ClearMLCallback(flush_limit=600))
    with missing("clearml"):
        made.train()
    assert made.state.global_step == 12
    assert "pip install clearml" in caplog.text
