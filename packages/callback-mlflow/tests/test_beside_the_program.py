"""The callback beside the program's own calls of MLflow, and beside its random numbers."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from reader import Database

from callback_contract.testing import unused_port, wait_until
from callback_core import TrainerCallback
from callback_mlflow import MLflowCallback
from trainer_torch.testing import At, Trial, draws_after_training, logged_points, small_trainer


class LogsByItself(TrainerCallback):
    """Logs to MLflow at each step, as a user's callback may do."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        mlflow.log_metric("mine", float(state.global_step), step=state.global_step)


MINE = [(step, float(step)) for step in range(1, 13)]


@pytest.mark.parametrize("name", ["small", None])
def test_a_training_draws_the_same_random_numbers_with_and_without_the_callback(
    name: str | None, database: Database, tmp_path: Path
) -> None:
    expected = draws_after_training(tmp_path / "without", run_name=name)
    assert draws_after_training(tmp_path / "with", MLflowCallback, run_name=name) == expected
    assert len(database.runs("Default")) == 1


def test_a_server_that_is_away_changes_no_random_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # MLflow draws the time between them
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0.01")
    away = MLflowCallback(tracking_uri=f"http://127.0.0.1:{unused_port()}", flush_limit=3)
    expected = draws_after_training(tmp_path / "without")
    assert draws_after_training(tmp_path / "with", away) == expected


@pytest.mark.parametrize("delivery", ["thread", "inline"])
def test_what_the_program_logs_from_the_first_step_is_in_the_run(
    delivery: Any, database: Database, tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        small_trainer(tmp_path / folder, MLflowCallback(delivery=delivery), LogsByItself).train()
    assert mlflow.active_run() is None
    runs = database.runs("Default")
    assert [(run.status, run.of("mine")) for run in runs] == [("FINISHED", MINE)] * 2


def test_a_run_that_mlflow_began_by_itself_is_named_and_not_used_by_later_trainings(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # With a process, the training's own thread has no run.
    process = MLflowCallback(delivery="process", flush_limit=90)
    small_trainer(tmp_path / "none", LogsByItself, process).train()
    [astray] = [run for run in database.runs("Default") if run.of("mine")]
    assert astray.id in caplog.text
    small_trainer(tmp_path / "one", MLflowCallback).train()
    small_trainer(tmp_path / "two", MLflowCallback, LogsByItself).train()
    runs = {run.id: run for run in database.runs("Default")}
    assert runs.pop(astray.id).points == astray.points
    assert len(runs) == 3
    assert sorted(len(run.of("mine")) for run in runs.values()) == [0, 0, 12]


def test_a_training_that_does_not_wait_for_its_run_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and answers nothing
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        away = MLflowCallback(tracking_uri=uri, open_limit=0.2, flush_limit=0.2)
        made = small_trainer(tmp_path / "out", away, At(1, lambda: said.extend(caplog.records)))
        said: list[Any] = []
        made.train()
    assert made.state.global_step == 12
    assert "mlflow" in " ".join(record.getMessage() for record in said)


def test_each_trial_of_a_search_is_a_run_inside_the_users(
    database: Database, tmp_path: Path
) -> None:
    with mlflow.start_run(run_name="search") as outer:
        callback = MLflowCallback()
        for number in range(2):
            trial = Trial(f"trial-{number}", {"layers": number})
            small_trainer(tmp_path / f"run-{number}", trial, callback, LogsByItself).train()
            assert mlflow.active_run().info.run_id == outer.info.run_id
        mlflow.log_metric("best", 1.0)
    search, *trials = database.runs("Default")
    assert search.curves() == {"best": [(0, 1.0)]}
    assert [run.name for run in trials] == ["trial-0", "trial-1"]
    assert [run.parameters["layers"] for run in trials] == ["0", "1"]
    assert {run.tags["mlflow.parentRunId"] for run in trials} == {outer.info.run_id}
    assert [(run.status, run.of("mine")) for run in trials] == [("FINISHED", MINE)] * 2


def test_a_trial_is_in_the_experiment_of_the_users_run(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "other")
    with mlflow.start_run(experiment_id=mlflow.create_experiment("searches")):
        small_trainer(tmp_path / "out", Trial("trial-0", {}), MLflowCallback).train()
    assert len(database.runs("searches")) == 2


@pytest.mark.parametrize("delivery", ["thread", "process"])
@pytest.mark.parametrize("variable", ["MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"])
def test_the_experiment_that_the_program_sets_takes_precedence_over_the_environment(
    variable: str,
    delivery: Any,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = mlflow.create_experiment("given")
    monkeypatch.setenv(variable, "given" if variable.endswith("NAME") else given)
    callback = MLflowCallback(delivery=delivery, flush_limit=90)
    mlflow.set_experiment("chosen")
    small_trainer(tmp_path / "out", callback).train()
    assert [len(database.runs(name)) for name in ("chosen", "given")] == [1, 0]


def test_the_experiment_of_the_argument_takes_precedence_over_the_one_that_the_program_sets(
    database: Database, tmp_path: Path
) -> None:
    mlflow.set_experiment("chosen")
    small_trainer(tmp_path / "out", MLflowCallback(experiment_name="argument")).train()
    assert [len(database.runs(name)) for name in ("argument", "chosen")] == [1, 0]


def test_the_store_that_the_program_sets_takes_precedence_over_the_environment(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow.set_tracking_uri(mlflow.get_tracking_uri())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    made = small_trainer(tmp_path / "out", MLflowCallback)
    made.train()
    [run] = database.runs("Default")
    assert run.values() == logged_points(made)


def test_the_trials_of_a_search_are_inside_the_run_that_the_environment_names(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow.start_run() as outer:
        pass
    monkeypatch.setenv("MLFLOW_RUN_ID", outer.info.run_id)
    for delivery in ("thread", "process"):
        callback = MLflowCallback(delivery=delivery, flush_limit=90)
        small_trainer(tmp_path / delivery, Trial(delivery, {}), callback).train()
    search, *trials = database.runs("Default")
    assert search.points == []
    assert {run.tags["mlflow.parentRunId"] for run in trials} == {outer.info.run_id}
    assert [len(run.of("train/loss")) for run in trials] == [12, 12]


@pytest.mark.parametrize("how", ["variable", "program", "argument"])
def test_system_metrics_are_recorded_where_mlflow_would_record_them(
    how: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    if how == "variable":
        monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    callback = MLflowCallback(log_system_metrics=True if how == "argument" else None)
    if how == "program":
        mlflow.enable_system_metrics_logging()
    cpu = "system/cpu_utilization_percentage"
    wait = At(6, lambda: wait_until(lambda: len(database.runs("Default")[0].of(cpu)) > 1))
    made = small_trainer(tmp_path / "out", callback, wait)
    made.train()
    [run] = database.runs("Default")
    steps = [step for step, _ in run.of(cpu)]
    assert steps == list(range(len(steps)))
    others = {key: value for key, value in run.values().items() if "system/" not in key[0]}
    assert others == logged_points(made)


def test_system_metrics_that_a_process_cannot_record_are_named(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = MLflowCallback(log_system_metrics=True, delivery="process", flush_limit=90)
    small_trainer(tmp_path / "out", callback).train()
    assert "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING" in caplog.text


def test_a_picture_in_a_log_is_a_picture_of_the_run(database: Database, tmp_path: Path) -> None:
    made = small_trainer(tmp_path / "out", MLflowCallback)
    picture = mlflow.Image(np.zeros((4, 4, 3), dtype=np.uint8))
    made.add_callback(At(5, lambda: made.log({"sides": {"left": picture}})))
    made.train()
    [run] = database.runs("Default")
    found = mlflow.MlflowClient().list_artifacts(run.id, "images")
    assert any(one.path.endswith(".png") and "left" in one.path for one in found)
