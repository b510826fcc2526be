"""What the callback is told, and what happens where ClearML is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callback_clearml import ClearMLCallback, ClearMLTracker
from callback_contract.testing import missing
from callback_core import get_available_reporting_integrations
from trainer_torch.testing import small_trainer


def test_the_defaults_are_those_of_transformers() -> None:
    tracker = ClearMLTracker()
    assert (tracker.project_name, tracker.task_name) == ("HuggingFace Transformers", "Trainer")
    assert tracker.takes_checkpoints is False


@pytest.mark.parametrize(
    ("value", "meant"),
    [(v, True) for v in ("1", "on", "Yes", "TRUE")]
    + [(v, False) for v in ("", "0", "off", "No", "false")],
)
def test_the_flag_of_the_environment_is_read_in_any_case(
    value: str, meant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLEARML_LOG_MODEL", value)
    assert ClearMLTracker().log_model is meant


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEARML_PROJECT", "of the environment")
    monkeypatch.setenv("CLEARML_TASK", "named there")
    monkeypatch.setenv("CLEARML_LOG_MODEL", "TRUE")
    given = ClearMLCallback(project_name="given", task_name="here", log_model=False).tracker
    assert given.settings() == {
        "project_name": "given",
        "task_name": "here",
        "log_model": False,
    }
    found = ClearMLCallback().tracker
    assert found.settings() == {
        "project_name": "of the environment",
        "task_name": "named there",
        "log_model": True,
    }


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("CLEARML_LOG_MODEL", "all", "1, ON, YES, TRUE, 0, OFF, NO, FALSE"),
        ("CLEARML_PROJECT", "ab", "3 characters"),
        ("CLEARML_TASK", "x", "3 characters"),
    ],
)
def test_a_wrong_variable_is_refused_with_its_name_its_value_and_the_choices(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable) as refused:
        ClearMLCallback()
    assert says in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("project_name", ""),
        ("task_name", 7),
        ("log_model", "yes"),
        ("delivery", "later"),
        ("flush_limit", -1),
    ],
)
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
    made = small_trainer(tmp_path, ClearMLCallback(flush_limit=1))
    with missing("clearml"):
        made.train()
    assert made.state.global_step == 12
    assert "pip install clearml" in caplog.text
