"""What the callback is told, and what happens where MLflow is missing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from callback_contract.testing import missing
from callback_core import get_available_reporting_integrations
from callback_mlflow import MLflowCallback, MLflowTracker
from trainer_torch.testing import small_trainer

FLAGS = {
    "HF_MLFLOW_LOG_ARTIFACTS": "log_artifacts",
    "MLFLOW_NESTED_RUN": "nested",
    "MLFLOW_FLATTEN_PARAMS": "flatten_params",
}


@pytest.mark.parametrize("variable", FLAGS)
@pytest.mark.parametrize(
    ("value", "meant"),
    [(v, True) for v in ("1", "on", "Yes", "TRUE")]
    + [(v, False) for v in ("", "0", "off", "No", "false")],
)
def test_flags_of_the_environment_are_read_in_any_case(
    variable: str, value: str, meant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(MLflowTracker(), FLAGS[variable]) is meant


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the environment")
    monkeypatch.setenv("MLFLOW_NESTED_RUN", "true")
    monkeypatch.setenv("MLFLOW_TAGS", '{"a": "b"}')
    tracker = MLflowCallback(experiment_name="given", nested=False, tags={"c": 1}).tracker
    assert (tracker.experiment_name, tracker.nested, tracker.tags) == ("given", False, {"c": "1"})
    tracker = MLflowCallback().tracker
    assert tracker.experiment_name == "of the environment"
    assert (tracker.nested, tracker.tags) == (True, {"a": "b"})


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MLFLOW_NESTED_RUN", "maybe", "1, ON, YES, TRUE, 0, OFF, NO, FALSE"),
        ("HF_MLFLOW_LOG_ARTIFACTS", "all", "1, ON, YES, TRUE, 0, OFF, NO, FALSE"),
        ("MLFLOW_FLATTEN_PARAMS", "2", "1, ON, YES, TRUE, 0, OFF, NO, FALSE"),
        ("DISABLE_MLFLOW_INTEGRATION", "please", "1, ON, YES, TRUE, 0, OFF, NO, FALSE"),
        ("MLFLOW_TAGS", "a=b", "JSON object"),
        ("MLFLOW_TAGS", '["a"]', "JSON object"),
        ("MLFLOW_TAGS", '{"a?": 1}', "letters, digits"),
        ("MLFLOW_TAGS", '{"a//b": 1}', "letters, digits"),
        ("MLFLOW_RUN_ID", "runs:/abc", "id of a run"),
        ("MLFLOW_MAX_LOG_PARAMS", "-1", "whole number"),
        ("MLFLOW_MAX_LOG_PARAMS", "many", "whole number"),
    ],
)
def test_a_wrong_variable_is_refused_with_its_name_its_value_and_the_choices(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable) as refused:
        MLflowCallback()
    assert says in str(refused.value)
    assert variable == "MLFLOW_TAGS" or repr(value) in str(refused.value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("nested", "yes"),
        ("log_artifacts", 1),
        ("experiment_name", ""),
        ("experiment_name", 7),
        ("run_id", "a/b"),
        ("tags", ["a"]),
        ("max_log_params", 1.5),
        ("delivery", "later"),
        ("open_limit", -1),
    ],
)
def test_a_wrong_argument_is_refused_with_its_name_and_value(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument) as refused:
        MLflowCallback(**{argument: value})
    assert repr(value) in str(refused.value)


def test_a_uri_with_a_password_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "http://me:secret@host:5000"
    assert MLflowTracker(tracking_uri=secret).settings() is None
    with pytest.raises(ValueError, match="process"):
        MLflowCallback(tracking_uri=secret, delivery="process")
    if "mlflow" not in sys.modules:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
        settings = MLflowTracker().settings()
        assert settings is not None
        assert settings["tracking_uri"] is None


def test_settings_make_an_equal_tracker() -> None:
    settings = MLflowTracker(
        tracking_uri="http://host", experiment_name="e", tags={"a": "b"}, log_artifacts=True
    ).settings()
    assert settings is not None
    assert MLflowTracker(**settings).settings() == settings


def test_a_disabled_integration_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISABLE_MLFLOW_INTEGRATION", "TRUE")
    made = small_trainer(tmp_path / "out", MLflowCallback, save_strategy="epoch")
    made.train()
    made.evaluate()
    assert not (tmp_path / "out" / "tracking").exists()


def test_the_package_is_found_by_its_name() -> None:
    assert "mlflow" in get_available_reporting_integrations()


def test_where_mlflow_is_missing_training_goes_on_and_the_install_that_mends_it_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path, MLflowCallback(flush_limit=1))
    with missing("mlflow"):
        made.train()
    assert made.state.global_step == 12
    assert "pip install mlflow" in caplog.text
