"""What the callback is told, and what it says where it is told too little."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import mlflow
import pytest

from callback_azureml import AzureMLCallback, AzureMLTracker
from callback_contract.testing import not_configured, replay, run_python
from callback_core import (
    NotConfigured,
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
    make_reporting_integration_callbacks,
)
from callback_mlflow import MLflowCallback
from trainer_torch.testing import logged_points, small_trainer

URI = "azureml://eastus.api.azureml.ms/mlflow/v1.0/subscriptions/s"


def test_the_package_is_found_by_the_name_of_transformers() -> None:
    assert "azure_ml" in get_available_reporting_integrations()
    assert get_reporting_integration_callbacks("azure_ml") == [AzureMLCallback]


def test_where_mlflow_is_asked_for_too_nothing_is_logged_twice() -> None:
    assert get_reporting_integration_callbacks(["mlflow", "azure_ml"]) == [AzureMLCallback]


def test_importing_the_package_imports_neither_mlflow_nor_azures_sdks() -> None:
    code = "import sys, callback_azureml; print({'mlflow', 'azureml', 'azure'} & set(sys.modules))"
    done = run_python("-c", code)
    assert done.stdout == "set()\n", done.stderr


def test_outside_of_azure_what_to_set_is_said_and_mlflow_alone_is_sent_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for report_to in ("azure_ml", ["mlflow", "azure_ml"]):
        with pytest.raises(NotConfigured, match=r"no tracking URI, .* Set MLFLOW_TRACKING_URI"):
            make_reporting_integration_callbacks(report_to)
    made = small_trainer(tmp_path / "out", report_to="all")
    made.train()
    assert made_for_all() == [MLflowCallback]
    assert "AzureMLCallback is not used: AzureMLCallback does not know where to" in caplog.text
    by_default = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [run] = by_default.search_runs(["0"])
    assert run.data.metrics.keys() == {name for name, _ in logged_points(made)}


def made_for_all() -> list[type[MLflowCallback]]:
    """Return the classes of MLflow's callbacks that `report_to="all"` makes."""
    made = make_reporting_integration_callbacks("all")
    return [type(callback) for callback in made if isinstance(callback, MLflowCallback)]


@pytest.mark.parametrize("by", ["MLFLOW_TRACKING_URI", "AZUREML_RUN_ID", "set_tracking_uri"])
def test_with_a_tracking_uri_or_in_a_job_report_to_all_sends_to_azure_alone(
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


def test_a_replay_that_does_not_know_where_to_says_what_to_set_and_delivers_once_it_is_set(
    workspace: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = workspace.begin_job("later")
    with monkeypatch.context() as in_a_job:  # whose run SDK v1 does not find
        in_a_job.setenv("AZUREML_RUN_ID", job["AZUREML_RUN_ID"])
        made = small_trainer(tmp_path / "out", AzureMLCallback(flush_limit=1))
        made.train()
    done = replay(tmp_path / "out", "--patience", "300")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Set MLFLOW_TRACKING_URI" in done.stdout
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = workspace.runs.runs("later")
    assert run.values() == logged_points(made)


def test_the_default_of_mlflow_is_not_taken_for_a_tracking_uri_of_the_user(
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


def test_another_mlflow_that_is_asked_for_is_used_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = AzureMLCallback(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    caplog.set_level(logging.WARNING)
    small_trainer(tmp_path / "out", callback).train()
    assert "another MLflow than Azure ML's" in caplog.text
    assert (tmp_path / "mlflow.db").exists()


def test_in_a_job_its_run_is_used_unless_one_inside_it_is_asked_for(
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
def test_the_limit_of_parameters_is_that_of_azure_where_no_other_is_given(
    given: dict[str, int], most: int
) -> None:
    tracker = AzureMLTracker(**given)
    assert tracker.limits.parameter_count == most


def test_an_argument_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError, match="stage"):
        AzureMLCallback(stage="test")


def test_settings_make_an_equal_tracker() -> None:
    settings = AzureMLTracker(tracking_uri=URI, nested=True, tags={"a": "b"}).settings()
    assert settings is not None
    assert AzureMLTracker(**settings).settings() == settings


def test_the_integration_is_switched_off_with_that_of_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISABLE_MLFLOW_INTEGRATION", "TRUE")
    small_trainer(tmp_path / "out", AzureMLCallback).train()
    assert not (tmp_path / "out" / "tracking").exists()


def test_who_is_not_logged_in_is_not_asked_and_not_waited_for_and_all_is_delivered_once_they_are(
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
    nobody = {"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential", "AZURE_CLIENT_ID": ""}
    where = {"MLFLOW_TRACKING_URI": workspace.uri}
    with not_configured("Nobody is logged in to Azure") as said:
        done = run_python("-c", code, str(tmp_path / "out"), variables={**nobody, **where})
        said.append(done.stderr)
    assert done.stdout.endswith("\n12\n"), done.stdout + done.stderr
    assert "To sign in" not in done.stdout + done.stderr
    for name, value in workspace.begin_job("logged in").items():
        monkeypatch.setenv(name, value)
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = workspace.runs.runs("logged in")
    assert [step for step, _ in run.of("train/loss")] == list(range(1, 13))
