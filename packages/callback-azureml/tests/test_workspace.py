"""Trainings that Azure's MLflow plugin logs to a workspace, read through MLflow's REST API."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from workspace import Workspace

from callback_azureml import AzureMLCallback
from callback_contract.testing import replay, run_python, wait_until
from trainer_torch.testing import At, Trial, logged_points, small_trainer


@pytest.fixture
def experiment(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


@pytest.fixture
def outside(workspace: Workspace, experiment: str, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Return the workspace, logged in to from outside a job."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.log_in())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    return workspace


@pytest.fixture
def job(workspace: Workspace, experiment: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Simulate a job, and return the id of its run."""
    for name, value in workspace.begin_job(experiment).items():
        monkeypatch.setenv(name, value)
    return os.environ["AZUREML_RUN_ID"]


def test_the_workspace_has_parameters_metrics_and_status(
    outside: Workspace, experiment: str, tmp_path: Path
) -> None:
    callback = AzureMLCallback(tags={"stage": "Größe"})
    made = small_trainer(tmp_path / "out", callback, config={"hidden_size": 8})
    made.add_callback(At(5, lambda: made.log({"nan": math.nan, "größe": 1.5})))
    made.train()
    [run] = outside.runs.runs(experiment)
    assert (run.name, run.status) == ("small", "FINISHED")
    values = run.values()
    assert math.isnan(values.pop(("train/nan", 5)))
    expected = logged_points(made)
    del expected["train/nan", 5]
    assert values == expected
    assert run.parameters["learning_rate"] == "0.05"
    assert run.parameters["hidden_size"] == "8"
    assert run.tags["stage"] == "Größe"
    sent = [one for one in outside.requests if one.path.endswith("/runs/log-batch")]
    assert sent and all("azureml-mlflow" in one.headers["User-Agent"] for one in sent)


def test_parameters_are_limited_to_what_azure_accepts(
    outside: Workspace, experiment: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {f"p{number}": number for number in range(300)}
    small_trainer(tmp_path / "out", AzureMLCallback(), config=config).train()
    [run] = outside.runs.runs(experiment)
    assert len(run.parameters) == 200
    assert "azure_ml" in caplog.text


def test_checkpoints_become_files_and_never_overwrite_one(
    outside: Workspace, experiment: str, tmp_path: Path
) -> None:
    callback = AzureMLCallback(log_artifacts=True, flush_limit=120)
    made = small_trainer(tmp_path / "out", callback, save_strategy="epoch")
    made.train()
    [run] = outside.runs.runs(experiment)
    kept = outside.files[run.id]
    assert {path.partition("/")[0] for path in kept} == {
        "checkpoint-4",
        "checkpoint-8",
        "checkpoint-12",
    }
    for path, content in kept.items():
        assert content == (tmp_path / "out" / path).read_bytes()
    callback = AzureMLCallback(log_artifacts=True, run_id=run.id, flush_limit=120)
    small_trainer(tmp_path / "again", callback, save_strategy="epoch").train()
    assert (
        outside.files[run.id]["checkpoint-4.2/model.safetensors"]
        == (tmp_path / "again" / "checkpoint-4" / "model.safetensors").read_bytes()
    )


def test_checkpoints_are_rejected_when_the_plugin_would_use_another_workspace(
    workspace: Workspace, experiment: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = AzureMLCallback(
        tracking_uri=workspace.log_in(), experiment_name=experiment, log_artifacts=True
    )
    made = small_trainer(tmp_path / "out", callback, save_strategy="epoch")
    made.train()
    [run] = workspace.runs.runs(experiment)
    assert run.values() == logged_points(made)
    assert workspace.files[run.id] == {}
    assert "MLFLOW_TRACKING_URI" in caplog.text


def test_the_run_of_the_job_is_used_and_stays_open(
    job: str, workspace: Workspace, experiment: str, tmp_path: Path
) -> None:
    made = small_trainer(tmp_path / "out", AzureMLCallback())
    made.train()
    [run] = workspace.runs.runs(experiment)
    assert (run.id, run.name, run.status) == (job, "the job", "RUNNING")
    assert run.values() == logged_points(made)


def test_nested_trials_are_runs_inside_the_jobs_run(
    job: str, workspace: Workspace, experiment: str, tmp_path: Path
) -> None:
    trial = Trial("trial-1", {"learning_rate": 0.05})
    made = small_trainer(tmp_path / "out", trial, AzureMLCallback(nested=True))
    made.train()
    of_job, run = workspace.runs.runs(experiment)
    assert (of_job.id, of_job.status, of_job.points) == (job, "RUNNING", [])
    assert (run.name, run.status) == ("trial-1", "FINISHED")
    assert run.tags["mlflow.parentRunId"] == job
    assert run.values() == logged_points(made)


def test_a_run_opened_by_the_user_is_used_and_stays_open(
    outside: Workspace, experiment: str, tmp_path: Path
) -> None:
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name="mine") as mine:
        made = small_trainer(tmp_path / "out", AzureMLCallback())
        made.train()
        [run] = outside.runs.runs(experiment)
        assert (run.id, run.name, run.status) == (mine.info.run_id, "mine", "RUNNING")
        assert run.values() == logged_points(made)


@pytest.mark.parametrize(
    ("raised", "status"),
    [(ArithmeticError("broken"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_the_status_says_how_a_training_broke(
    raised: BaseException, status: str, outside: Workspace, experiment: str, tmp_path: Path
) -> None:
    def fail() -> None:
        raise raised

    with pytest.raises(type(raised)):
        small_trainer(tmp_path / "out", AzureMLCallback(), At(7, fail)).train()
    [run] = outside.runs.runs(experiment)
    assert run.status == status
    assert [step for step, _ in run.of("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_training_continues_its_run(
    outside: Workspace, experiment: str, tmp_path: Path
) -> None:
    def fail() -> None:
        raise ArithmeticError

    saving = {"save_strategy": "steps", "save_steps": 3}
    with pytest.raises(ArithmeticError):
        small_trainer(tmp_path / "out", AzureMLCallback(), At(8, fail), **saving).train()
    made = small_trainer(tmp_path / "out", AzureMLCallback(), **saving)
    made.train(resume_from_checkpoint=True)
    [run] = outside.runs.runs(experiment)
    assert run.status == "FINISHED"
    assert run.values().keys() >= logged_points(made).keys()
    assert [step for step, _ in run.of("train/loss")] == list(range(1, 13))


def test_a_second_training_gets_its_own_run(
    outside: Workspace, experiment: str, tmp_path: Path
) -> None:
    made = small_trainer(tmp_path / "out", AzureMLCallback())
    made.train()
    made.train()
    first, second = outside.runs.runs(experiment)
    assert (first.status, second.status) == ("FINISHED", "FINISHED")
    assert len(first.of("train/loss")) == len(second.of("train/loss")) == 12


@pytest.mark.parametrize("mode", ["broken", "silent", "gone"])
def test_an_unreachable_service_delays_no_training_and_a_replay_delivers(
    mode: Any,
    job: str,
    workspace: Workspace,
    experiment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    workspace.mode = mode
    try:
        made = small_trainer(tmp_path / "out", AzureMLCallback(flush_limit=1))
        begun = time.monotonic()
        made.train()
        took = time.monotonic() - begun
    finally:
        workspace.mode = "ok"
    assert took < 200  # it waits a second
    assert made.state.global_step == 12
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = workspace.runs.runs(experiment)
    assert (run.id, run.status) == (job, "RUNNING")
    assert run.values() == logged_points(made)


@pytest.mark.slow
def test_a_delivery_process_delivers_the_rest_of_a_killed_training(
    job: str, workspace: Workspace, experiment: str, tmp_path: Path
) -> None:
    code = """
import os, sys
from pathlib import Path
from callback_azureml import AzureMLCallback
from trainer_torch.testing import At, small_trainer
kill = At(9, lambda: os.kill(os.getpid(), 9))
small_trainer(Path(sys.argv[1]), AzureMLCallback(nested=True, delivery="process"), kill).train()
"""
    done = run_python("-c", code, str(tmp_path))
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until(
        lambda: [run.status for run in workspace.runs.runs(experiment)] == ["RUNNING", "FAILED"]
    )
    _, run = workspace.runs.runs(experiment)
    assert [step for step, _ in run.of("train/loss")] == [1, 2, 3, 4, 5, 6, 7, 8]
