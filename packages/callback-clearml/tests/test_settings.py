"""Settings of the callback, and training without ClearML installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callback_clearml import ClearMLCallback, ClearMLTracker
from callback_contract.testing import missing
from callback_core import get_available_reporting_integrations
from trainer_torch.testing import small_trainer


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


def test_without_clearml_training_continues_and_the_log_names_the_install_command(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path, ClearMLCallback(flush_limit=600))
    with missing("clearml"):
        made.train()
    assert made.state.global_step == 12
    assert "pip install clearml" in caplog.text
