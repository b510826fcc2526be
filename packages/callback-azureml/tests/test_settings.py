"""Settings of the callback, and the errors when one is missing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlflow
import pytest

from callback_azureml import AzureMLCallback, AzureMLTracker
from callback_contract.testing import missing, not_configured, replay, run_python
from callback_core import (
    NotConfigured,
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
    make_reporting_integration_callbacks,
)
from callback_mlflow import MLflowCallback
from trainer_torch.testing import logged_points, small_trainer

URI = "azureml://eastus.api.azureml.ms/mlflow/v1.0/subscriptions/s"


def test_the_entry_point_has_the_name_of_transformers() -> None:
    assert "azure_ml" in get_available_reporting_integrations()
    assert get_reporting_integration_callbacks("azure_ml") == [AzureMLCallback]


def test_selecting_mlflow_as_well_logs_nothing_twice() -> None:
    assert get_reporting_integration_callbacks(["mlflow", "azure_ml"]) == [AzureMLCallback]


def test_importing_the_package_imports_neither_mlflow_nor_azures_sdks() -> None:
    code = "import sys, callback_azureml; print({'mlflow', 'azureml', 'azure'} & set(sys.modules))"
    done = run_python("-c", code)
    assert done.stdout == "set()\n", done.stderr


def test_outside_azure_the_error_names_the_variable_and_all_selects_mlflow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for report_to in ("azure_ml", ["mlflow", "azure_ml"]):
        with pytest.raises(NotConfigured, match="MLFLOW_TRACKING_URI"):
            make_reporting_integration_callbacks(report_to)
    made = small_trainer(tmp_path / "out", report_to="all")
    made.train()
    assert made_for_all() == [MLflowCallback]
    assert any("AzureMLCallback" in m and "MLFLOW_TRACKING_URI" in m for m in caplog.messages)
    by_default = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run] = by_default.search_runs(["0"])
    assert run.data.metrics.keys() == {name for name, _ in logged_points(made)}


def made_for_all() -> list[type[MLflowCallback]]:
    """Return the MLflow callback classes that `report_to="all"` selects."""
    made = make_reporting_integration_callbacks("all")
    return [type(callback) for callback in made if isinstance(callback, MLflowCallback)]


@pytest.mark.parametrize("by", ["MLFLOW_TRACKING_URI", "AZUREML_RUN_ID", "set_tracking_uri"])
def test_with_a_tracking_uri_or_in_a_job_all_selects_azure_only(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "set_tracking_uri":
        mlflow.set_tracking_uri(URI)
    else:
        monkeypatch.setenv(by, URI)
    try:
        assert made_for_all() == [AzureMLCallback]
    finally:
        mlflow.set_tracking_uri(None)
    assert type(AzureMLCallback(tracking_uri=URI)) is AzureMLCallback


def test_a_replay_without_a_destination_names_the_variable_and_delivers_once_it_is_set(
    workspace: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = workspace.begin_job("later")
    with monkeypatch.context() as in_a_job:  # SDK v1 does not find the job's run
        in_a_job.setenv("AZUREML_RUN_ID", job["AZUREML_RUN_ID"])
        made = small_trainer(tmp_path / "out", AzureMLCallback(flush_limit=1))
        made.train()
    done = replay(tmp_path / "out", "--patience", "300")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MLFLOW_TRACKING_URI" in done.stdout
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = workspace.runs.runs("later")
    assert run.values() == logged_points(made)


def test_mlflows_default_is_not_a_tracking_uri_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert mlflow.get_tracking_uri().startswith("sqlite:")
    settings = AzureMLTracker().settings()
    assert settings is not None
    assert settings["tracking_uri"] is None
    mlflow.set_tracking_uri(URI)
    try:
        settings = AzureMLTracker().settings()
    finally:
        mlflow.set_tracking_uri(None)
    assert settings is not None
    assert settings["tracking_uri"] == URI


def test_a_server_outside_azure_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = AzureMLCallback(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    caplog.set_level(logging.WARNING)
    small_trainer(tmp_path / "out", callback).train()
    assert "MLFLOW_TRACKING_URI" in caplog.text
    assert (tmp_path / "mlflow.db").exists()


def test_in_a_job_its_run_is_used_unless_a_nested_run_is_requested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZUREML_RUN_ID", "job")
    assert AzureMLTracker().run_id == "job"
    monkeypatch.setenv("MLFLOW_RUN_ID", "job")
    assert AzureMLTracker().run_id == "job"
    assert AzureMLTracker(run_id="mine").run_id == "mine"
    for inside in (AzureMLTracker(nested=True), AzureMLTracker(parent_run_id="job")):
        assert (inside.run_id, inside.parent_run_id) == (None, "job")


@pytest.mark.parametrize(("given", "most"), [({}, 200), ({"max_log_params": 7}, 7)])
def test_the_default_parameter_limit_is_that_of_azure(given: dict[str, int], most: int) -> None:
    tracker = AzureMLTracker(**given)
    assert tracker.limits.parameter_count == most


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="stage"):
        AzureMLCallback(stage="test")


def test_settings_make_an_equal_tracker() -> None:
    settings = AzureMLTracker(tracking_uri=URI, nested=True, tags={"a": "b"}).settings()
    assert settings is not None
    assert AzureMLTracker(**settings).settings() == settings


def test_the_variable_that_disables_mlflow_disables_the_callback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISABLE_MLFLOW_INTEGRATION", "TRUE")
    small_trainer(tmp_path / "out", AzureMLCallback).train()
    assert not (tmp_path / "out" / "tracking").exists()


def test_without_a_login_nothing_prompts_or_waits_and_a_replay_delivers(
    workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import sys
from pathlib import Path
from callback_azureml import AzureMLCallback
from trainer_torch.testing import small_trainer
made = small_trainer(Path(sys.argv[1]), AzureMLCallback(flush_limit=600))
made.train()
print(made.state.global_step)
"""
    no_login = {"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential", "AZURE_CLIENT_ID": ""}
    variables = {**no_login, "MLFLOW_TRACKING_URI": workspace.uri}
    with not_configured("Azure") as logged:
        done = run_python("-c", code, str(tmp_path / "out"), variables=variables)
        logged.append(done.stderr)
    assert done.stdout.endswith("\n12\n"), done.stdout + done.stderr
    assert "To sign in" not in done.stdout + done.stderr
    for name, value in workspace.begin_job("logged in").items():
        monkeypatch.setenv(name, value)
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = workspace.runs.runs("logged in")
    assert [step for step, _ in run.of("train/loss")] == list(range(1, 13))


@pytest.mark.parametrize(
    ("module", "install"), [("mlflow", "mlflow"), ("azureml", "azureml-mlflow")]
)
def test_without_its_sdk_the_callback_is_refused_when_it_is_made(module: str, install: str) -> None:
    with missing(module), pytest.raises(ModuleNotFoundError) as refused:
        AzureMLCallback(tracking_uri=URI)
    assert refused.value.name == module
    assert "AzureMLCallback" in str(refused.value)
    assert f"pip install {install}" in str(refused.value)


def test_a_job_without_a_tracking_uri_needs_sdk_v1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_RUN_ID", "job")
    with missing("azureml"), pytest.raises(ModuleNotFoundError) as refused:
        AzureMLCallback()
    assert "callback-azureml[v1]" in str(refused.value)
    AzureMLCallback()


def test_a_callback_that_is_switched_off_needs_no_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISABLE_MLFLOW_INTEGRATION", "true")
    with missing("mlflow"):
        assert AzureMLCallback(tracking_uri=URI).tracker.disabled
