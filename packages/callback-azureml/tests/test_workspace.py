"""Trainings that Azure's plugin for MLflow sends to a workspace, read back by MLflow's REST API."""

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
    """Return the workspace, into which somebody is logged in who is in no job."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.log_in())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    return workspace


@pytest.fixture
def job(workspace: Workspace, experiment: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Be in a job, and return the id of its run."""
    for name, value in workspace.begin_job(experiment).items():
        monkeypatch.setenv(name, value)
    return os.environ["AZUREML_RUN_ID"]


def test_parameters_metrics_and_status_of_a_training_are_in_the_workspace(
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


def test_no_more_parameters_are_sent_than_azure_takes(
    outside: Workspace, experiment: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {f"p{number}": number for number in range(300)}
    small_trainer(tmp_path / "out", AzureMLCallback(), config=config).train()
    [run] = outside.runs.runs(experiment)
    assert len(run.parameters) == 200
    assert "azure_ml" in caplog.text


def test_checkpoints_become_files_of_the_run_and_never_meet_one_that_is_there(
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


def test_checkpoints_that_the_plugin_would_send_elsewhere_are_left_out_and_that_is_said(
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
    assert "set MLFLOW_TRACKING_URI" in caplog.text


def test_the_run_of_the_job_is_used_and_stays_open(
    job: str, workspace: Workspace, experiment: str, tmp_path: Path
) -> None:
    made = small_trainer(tmp_path / "out", AzureMLCallback())
    made.train()
    [run] = workspace.runs.runs(experiment)
    assert (run.id, run.name, run.status) == (job, "the job", "RUNNING")
    assert run.values() == logged_points(made)


def test_trials_in_a_job_are_runs_of_their_own_inside_it_where_that_is_asked_for(
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


def test_a_run_that_the_user_has_opened_is_used_and_stays_open(
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
def test_a_training_that_breaks_is_marked_so(
    raised: BaseException, status: str, outside: Workspace, experiment: str, tmp_path: Path
) -> None:
    def fail() -> None:
        raise raised

    with pytest.raises(type(raised)):
        small_trainer(tmp_path / "out", AzureMLCallback(), At(7, fail)).train()
    [run] = outside.runs.runs(experiment)
    assert run.status == status
    assert [step for step, _ in run.of("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_a_resumed_training_goes_on_in_its_run(
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


def test_a_second_training_has_a_run_of_its_own(
    outside: Workspace, experiment: str, tmp_path: Path
) -> None:
    made = small_trainer(tmp_path / "out", AzureMLCallback())
    made.train()
    made.train()
    first, second = outside.runs.runs(experiment)
    assert (first.status, second.status) == ("FINISHED", "FINISHED")
    assert len(first.of("train/loss")) == len(second.of("train/loss")) == 12


@pytest.mark.parametrize("mode", ["broken", "silent", "gone"])
def test_a_service_that_is_away_delays_no_training_and_gets_all_of_it_later(
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
def test_a_process_of_its_own_delivers_the_rest_of_a_training_that_is_killed(
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
