"""Settings of the callback, and training without MLflow installed."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from callback_contract.testing import missing, not_configured
from callback_core import get_available_reporting_integrations
from callback_mlflow import MLflowCallback, MLflowTracker
from trainer_torch.testing import small_trainer


@pytest.mark.parametrize("name", ["a?", "a//b"])
def test_an_invalid_tag_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TAGS", json.dumps({name: 1}))
    with pytest.raises(ValueError, match=r"^MLFLOW_TAGS ") as refused:
        MLflowCallback()
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize(("argument", "value"), [("delivery", "later"), ("open_limit", -1)])
def test_an_error_names_the_invalid_argument_and_its_value(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument) as refused:
        MLflowCallback(**{argument: value})
    assert repr(value) in str(refused.value)


def test_a_uri_with_a_password_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{}/mlflow.db"),
        ("sqlite+pysqlite:///data/mlflow.db", "sqlite+pysqlite:///{}/data/mlflow.db"),
        ("file:mlruns", "file://{}/mlruns"),
        ("file:./mlruns", "file://{}/mlruns"),
        ("./mlruns", "{}/mlruns"),
        ("mlruns", "{}/mlruns"),
        *(
            (uri, uri)
            for uri in ("sqlite:////data/mlflow.db", "sqlite:///:memory:", "file:///data")
        ),
        *(
            (uri, uri)
            for uri in ("http://host:5000", "databricks", "databricks://me", "uc:http://a")
        ),
        *((uri, uri) for uri in ("/data/mlruns", "postgresql://host/mlflow")),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_settings_have_an_address_that_means_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, absolute: str, given: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(None if given else uri)
    tracker = MLflowTracker(tracking_uri=uri if given else None)
    settings = tracker.settings()
    mlflow.set_tracking_uri(None)
    assert settings is not None
    assert settings["tracking_uri"] == absolute.format(tmp_path)


def test_a_disabled_integration_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISABLE_MLFLOW_INTEGRATION", "TRUE")
    made = small_trainer(tmp_path / "out", MLflowCallback, save_strategy="epoch")
    made.train()
    made.evaluate()
    assert not (tmp_path / "out" / "tracking").exists()


def test_without_a_databricks_login_the_end_of_training_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = [name for name in os.environ if name.startswith(("DATABRICKS_", "ARM_"))]
    with not_configured("Reading Databricks credential", *names) as logged:  # MLflow's own words
        callback = MLflowCallback(tracking_uri="databricks", flush_limit=600)
        small_trainer(tmp_path / "out", callback).train()
    assert "databricks auth login" in logged[-1]


def test_the_entry_point_is_registered() -> None:
    assert "mlflow" in get_available_reporting_integrations()


def test_without_its_sdk_the_callback_is_refused_when_it_is_made() -> None:
    with missing("mlflow"), pytest.raises(ModuleNotFoundError) as refused:
        MLflowCallback()
    assert refused.value.name == "mlflow"
    assert "MLflowCallback" in str(refused.value)
    assert "pip install mlflow" in str(refused.value)
