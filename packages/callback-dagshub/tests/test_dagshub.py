"""Trainings that are logged to a stand-in for DagsHub in front of MLflow's own server."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from dagshub_server import TOKEN, DagsHub

from callback_contract.testing import Answer, not_configured, replay, run_python, wait_until
from callback_core import TrainerCallback
from callback_dagshub import DagsHubCallback
from callback_mlflow import MLflowCallback
from callback_mlflow.testing import Runs
from trainer_torch.testing import At, Trial, logged_points, pickled_copies, small_trainer

SAVING = {"save_strategy": "epoch"}


@pytest.fixture
def callback(dagshub: DagsHub, request: pytest.FixtureRequest) -> Any:
    """Return a function that makes a callback, whose experiment has the test's name."""

    def make(repository: str | None = "o/r", **settings: Any) -> DagsHubCallback:
        usual = {"experiment_name": request.node.name, "flush_limit": 60}
        return DagsHubCallback(repository, **{**usual, **settings})

    return make


@pytest.fixture
def runs(reader: Runs, request: pytest.FixtureRequest) -> Any:
    """Return a function that reads the runs of the test's experiment."""
    return lambda: reader.runs(request.node.name)


def settings() -> dict[str, str]:
    """Return the environment variables of MLflow and DagsHub."""
    return {name: os.environ[name] for name in os.environ if "MLFLOW" in name or "DAGSHUB" in name}


def fail() -> None:
    raise ArithmeticError("as planned")


def committed(dagshub: DagsHub, folder: str = "artifacts/main") -> dict[str, bytes]:
    """Return the contents of the files in a folder of the repository."""
    return {
        path.removeprefix(f"{folder}/"): content
        for path, content in dagshub.files.items()
        if path.startswith(f"{folder}/")
    }


def content(directory: Path) -> dict[str, bytes]:
    """Return the contents of the files in a directory."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_a_training_is_logged_and_no_user_setting_changes(
    dagshub: DagsHub, callback: Any, runs: Any, reader: Runs, tmp_path: Path
) -> None:
    before = settings()
    made = small_trainer(tmp_path / "out", callback(log_artifacts=True), **SAVING)
    made.add_callback(At(5, lambda: made.log({"größe": 1.5})))
    made.train()
    assert settings() == before
    [run] = runs()
    assert (run.status, run.values()) == ("FINISHED", logged_points(made))
    assert (run.parameters["learning_rate"], run.parameters["hidden_size"]) == ("0.05", "8")
    for saved in (tmp_path / "out" / f"checkpoint-{step}" for step in (4, 8, 12)):
        sizes = {f"{saved.name}/{file.name}": file.stat().st_size for file in saved.iterdir()}
        assert reader.artifacts(run.id, saved.name) == sizes
    signed = {bool(request.headers["Authorization"]) for request in dagshub.requests}
    assert signed == {True}
    assert dagshub.commits == []
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []


def test_the_users_requests_to_another_server_do_not_carry_the_token(
    dagshub: DagsHub, callback: Any, runs: Any, tmp_path: Path
) -> None:
    def look() -> None:
        mlflow.MlflowClient(f"{dagshub.url}/elsewhere").search_experiments()

    trained = small_trainer(tmp_path / "out", callback(delivery="inline"))

    class Looks(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            with pytest.raises(mlflow.MlflowException):
                look()

    trained.add_callback(Looks())
    trained.train()
    elsewhere = [one for one in dagshub.requests if one.path.startswith("/elsewhere")]
    assert len(elsewhere) >= 12
    assert {one.headers["Authorization"] for one in elsewhere} == {None}
    assert [run.status for run in runs()] == ["FINISHED"]


@pytest.mark.parametrize("best", [True, False])
def test_the_best_or_last_model_is_committed_once_after_training(
    best: bool, dagshub: DagsHub, callback: Any, runs: Any, reader: Runs, tmp_path: Path
) -> None:
    deciding = {"load_best_model_at_end": True, "greater_is_better": True} if best else {}
    made = small_trainer(tmp_path / "out", callback(upload_model=True), **SAVING, **deciding)
    made.train()
    if best:  # the loss falls, and greater_is_better makes the first checkpoint the best
        assert made.state.best_model_checkpoint.endswith("checkpoint-4")
    step = 4 if best else 12
    assert committed(dagshub) == content(tmp_path / "out" / f"checkpoint-{step}")
    [run] = runs()
    [(branch, _, fields)] = dagshub.commits
    assert (branch, fields["versioning"]) == ("main", "dvc")
    assert fields["commit_summary"] == f"Model of MLflow run {run.id}"
    assert run.status == "FINISHED"
    assert reader.artifacts(run.id, "") == {}


def test_the_environment_names_the_branch_and_directory_of_the_model(
    dagshub: DagsHub, callback: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DAGSHUB_LOG_ARTIFACTS", "TRUE")
    monkeypatch.setenv("HF_DAGSHUB_MODEL_NAME", "nets/small")
    monkeypatch.setenv("BRANCH", "models")
    small_trainer(tmp_path / "out", callback(), **SAVING).train()
    assert [branch for branch, _, _ in dagshub.commits] == ["models"]
    assert "model.safetensors" in committed(dagshub, "artifacts/nets/small")


def test_failed_trainings_and_trials_commit_no_model(
    dagshub: DagsHub, callback: Any, runs: Any, tmp_path: Path
) -> None:
    with pytest.raises(ArithmeticError):
        small_trainer(
            tmp_path / "failed", callback(upload_model=True), At(9, fail), **SAVING
        ).train()
    trial = Trial("trial-7", {"learning_rate": 0.1})
    small_trainer(tmp_path / "trial", trial, callback(upload_model=True), **SAVING).train()
    assert [run.status for run in runs()] == ["FAILED", "FINISHED"]
    assert dagshub.commits == []


def test_a_warning_reports_that_no_checkpoint_was_saved(
    dagshub: DagsHub, callback: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_trainer(tmp_path / "out", callback(upload_model=True)).train()
    assert "save_strategy" in caplog.text
    assert dagshub.commits == []


def test_a_conflicting_model_is_rejected_and_the_run_is_closed(
    dagshub: DagsHub, callback: Any, runs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dagshub.refusal = Answer(
        400, b'{"error": "versioning conflict", "details": "artifacts/main is in git"}'
    )
    small_trainer(tmp_path / "out", callback(upload_model=True), **SAVING).train()
    assert [run.status for run in runs()] == ["FINISHED"]
    assert "VersioningConflictError: artifacts/main is in git" in caplog.text


def test_a_model_that_dagshub_cannot_accept_now_is_delivered_later(
    dagshub: DagsHub, callback: Any, runs: Any, tmp_path: Path
) -> None:
    dagshub.refusal = Answer(503, b'{"message": "busy"}')
    sent = callback(upload_model=True, flush_limit=3)
    small_trainer(tmp_path / "out", sent, save_total_limit=1, **SAVING).train()
    assert dagshub.commits == []
    dagshub.refusal = None
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert committed(dagshub) == content(tmp_path / "out" / "checkpoint-12")
    assert [run.status for run in runs()] == ["FINISHED"]


def test_without_a_token_the_training_continues_and_a_replay_delivers(
    dagshub: DagsHub,
    callback: Any,
    runs: Any,
    tmp_path: Path,
) -> None:
    with not_configured(dagshub.url, "DAGSHUB_USER_TOKEN"):
        made = small_trainer(tmp_path / "out", callback(flush_limit=600))
        made.train()
    assert dagshub.requests == []
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = runs()
    assert (run.status, run.values()) == ("FINISHED", logged_points(made))


def test_a_rejected_token_is_reported(
    dagshub: DagsHub,
    callback: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAGSHUB_USER_TOKEN", "wrong")

    def is_reported() -> bool:
        return dagshub.url in caplog.text and "DAGSHUB_USER_TOKEN" in caplog.text

    reported = At(12, lambda: wait_until(is_reported))
    small_trainer(tmp_path / "out", callback(flush_limit=2), reported).train()


@pytest.mark.slow
def test_the_token_of_a_login_is_used_and_survives_server_errors(
    dagshub: DagsHub, reader: Runs, tmp_path: Path
) -> None:
    code = f"""
import sys
from pathlib import Path
from dagshub.auth.token_auth import AppDagshubToken
from dagshub.auth.tokens import TokenStorage
from callback_dagshub import DagsHubCallback
from trainer_torch.testing import small_trainer
TokenStorage().add_token(AppDagshubToken("{TOKEN}"), skip_validation=True)
sent = DagsHubCallback("o/r", experiment_name="login", flush_limit=float(sys.argv[1]))
small_trainer(Path(sys.argv[2]), sent).train()
"""
    variables = {"DAGSHUB_USER_TOKEN": "", "DAGSHUB_CLIENT_TOKENS_CACHE": str(tmp_path / "kept")}
    dagshub.mode = "broken"
    done = run_python("-c", code, "2", str(tmp_path / "away"), variables=variables)
    assert done.returncode == 0, done.stderr
    assert TOKEN in (tmp_path / "kept").read_text()
    dagshub.mode = "ok"
    done = run_python("-c", code, "60", str(tmp_path / "out"), variables=variables)
    assert done.returncode == 0, done.stderr
    assert [run.status for run in reader.runs("login")] == ["FINISHED"]


def test_mlflows_credentials_take_precedence_and_upload_the_model_without_a_token(
    dagshub: DagsHub,
    callback: Any,
    runs: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DAGSHUB_USER_TOKEN")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{dagshub.url}/o/r.mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "o")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", TOKEN)
    small_trainer(tmp_path / "out", callback(None, upload_model=True), **SAVING).train()
    assert [run.status for run in runs()] == ["FINISHED"]
    assert committed(dagshub) == content(tmp_path / "out" / "checkpoint-12")
    assert "/api/v1/user" not in {request.path for request in dagshub.requests}


def test_a_run_opened_by_the_user_at_dagshub_is_used_and_stays_open(
    dagshub: DagsHub,
    callback: Any,
    runs: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"{dagshub.url}/o/r.mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "o")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", TOKEN)
    experiment = mlflow.set_experiment(request.node.name)
    with mlflow.start_run(experiment_id=experiment.experiment_id):
        made = small_trainer(tmp_path / "out", callback(None))
        made.train()
        [run] = runs()
        assert (run.status, run.values()) == ("RUNNING", logged_points(made))
    assert [run.status for run in runs()] == ["FINISHED"]
    mlflow.set_tracking_uri(None)
    mlflow.tracking.fluent._active_experiment_id = None  # noqa: SLF001


def test_a_resumed_training_continues_its_run_and_the_next_gets_its_own(
    callback: Any, runs: Any, tmp_path: Path
) -> None:
    with pytest.raises(ArithmeticError):
        small_trainer(tmp_path / "out", callback(), At(6, fail), **SAVING).train()
    [run] = runs()
    assert run.status == "FAILED"
    resumed = small_trainer(tmp_path / "out", callback(), **SAVING)
    resumed.train(resume_from_checkpoint=True)
    [again] = runs()
    assert (again.id, again.status) == (run.id, "FINISHED")
    assert [step for step, _ in again.of("train/loss")] == list(range(1, 13))
    resumed.train()
    assert [run.status for run in runs()] == ["FINISHED", "FINISHED"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["refused", "broken", "silent"])
def test_an_unreachable_dagshub_delays_nothing_and_a_replay_delivers(
    mode: Any, dagshub: DagsHub, callback: Any, runs: Any, tmp_path: Path
) -> None:
    if mode == "refused":
        dagshub.stop()
    else:
        dagshub.mode = mode
    made = small_trainer(tmp_path / "out", callback(flush_limit=2, upload_model=True), **SAVING)
    begun = time.monotonic()
    made.train()
    took = time.monotonic() - begun
    if mode == "refused":
        dagshub.start()
    dagshub.mode = "ok"
    assert took < 200  # it waits two seconds
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = runs()
    assert (run.status, run.values()) == ("FINISHED", logged_points(made))
    assert committed(dagshub) == content(tmp_path / "out" / "checkpoint-12")


@pytest.mark.slow
def test_a_delivery_process_closes_the_run_of_a_killed_training(
    dagshub: DagsHub, runs: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    code = """
import os, sys
from pathlib import Path
from callback_dagshub import DagsHubCallback
from trainer_torch.testing import At, small_trainer
sent = DagsHubCallback("o/r", experiment_name=sys.argv[2], delivery="process", upload_model=True)
dies = At(9, lambda: os.kill(os.getpid(), 9))
small_trainer(Path(sys.argv[1]), sent, dies, save_strategy="epoch").train()
"""
    done = run_python("-c", code, str(tmp_path / "out"), request.node.name)
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until(lambda: [run.status for run in runs()] == ["FAILED"], 240)
    [run] = runs()
    assert [step for step, _ in run.of("train/loss")] == list(range(1, 9))
    assert dagshub.commits == []


@pytest.mark.slow
def test_a_delivery_process_delivers_the_model(
    dagshub: DagsHub, callback: Any, runs: Any, tmp_path: Path
) -> None:
    small_trainer(
        tmp_path / "out", callback(delivery="process", upload_model=True), **SAVING
    ).train()
    assert [run.status for run in runs()] == ["FINISHED"]
    assert committed(dagshub) == content(tmp_path / "out" / "checkpoint-12")


@pytest.mark.parametrize("first", ["mlflow", "dagshub"])
def test_passing_mlflows_callback_for_the_same_repository_logs_a_warning(
    first: str,
    dagshub: DagsHub,
    callback: Any,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    same = MLflowCallback(tracking_uri=f"{dagshub.url}/o/r.mlflow", flush_limit=0)
    other = MLflowCallback(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", flush_limit=0)
    both = [same, callback(flush_limit=0)]
    ordered = both if first == "mlflow" else both[::-1]
    small_trainer(tmp_path / "out", *ordered, other).train()
    [warning] = [r for r in caplog.records if r.name.startswith("callback_dagshub")]
    assert "DagsHubCallback" in warning.getMessage()


def test_the_callback_can_be_pickled_before_during_and_after_a_training(
    tmp_path: Path, callback: Any
) -> None:
    tracked = callback()
    copies = pickled_copies(tmp_path / "out", tracked)
    assert [(type(copy), copy.session) for copy in copies] == [(DagsHubCallback, None)] * 3
    assert all(copy.tracker.settings() for copy in copies)
