"""The content of MLflow's database after a training, read without MLflow."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from reader import Database

from callback_contract.testing import replay, run_python, wait_until
from callback_core.tracking import Opening, Point
from callback_mlflow import MLflowCallback, MLflowTracker
from trainer_torch.testing import At, logged_points, pickled_copies, small_trainer


@pytest.fixture
def tracker(database: Database) -> MLflowTracker:
    return MLflowTracker()


def opening(tmp_path: Path, **changed: Any) -> Opening:
    folder = tmp_path / "tracking" / "20260101-000000-abcdef" / "mlflow"
    return Opening(**{"name": None, "output_dir": tmp_path, "folder": folder, **changed})


def test_the_database_has_parameters_metrics_tags_and_status(
    database: Database, tmp_path: Path
) -> None:
    callback = MLflowCallback(tags={"stage": "test"})
    made = small_trainer(
        tmp_path / "out", callback, run_name="first", config={"hidden_size": 8, "seed": -1}
    )
    made.train()
    [run] = database.runs("Default")
    assert (run.name, run.status) == ("first", "FINISHED")
    assert run.values() == logged_points(made)
    assert run.parameters["learning_rate"] == "0.05"
    assert run.parameters["hidden_size"] == "8"
    assert (
        run.parameters["seed"] == "42"
    )  # the arguments take precedence over the model's configuration
    assert run.tags["stage"] == "test"
    assert run.tags["mlflow.source.name"] == sys.argv[0]
    assert run.tags["mlflow.user"]


def test_tags_have_no_secrets(database: Database, tmp_path: Path) -> None:
    tags = {"db_pwd": "moonshine", "stage": "test", "note": "curl -u ada:moonshine https://host"}
    small_trainer(tmp_path / "out", MLflowCallback(tags=tags)).train()
    [run] = database.runs("Default")
    assert (run.tags["db_pwd"], run.tags["stage"]) == ("[redacted]", "test")
    assert "moonshine" not in str(run.tags)
    for file in (tmp_path / "out").glob("tracking/*/*.json*"):
        assert "moonshine" not in file.read_text()


def test_the_repository_that_mlflow_finds_has_no_password(
    database: Database, tmp_path: Path
) -> None:
    script = tmp_path / "code" / "train.py"
    script.parent.mkdir()
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from callback_mlflow import MLflowCallback\n"
        "from trainer_torch.testing import small_trainer\n"
        "small_trainer(Path(sys.argv[1]), MLflowCallback(flush_limit=300)).train()\n"
    )
    remote = "https://ada:moonshine@host.example/repository"
    for command in ("init -q", f"remote add origin {remote}", "add train.py", "commit -q -m one"):
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@host.example"]
        subprocess.run(["git", *identity, *command.split()], cwd=script.parent, check=True)
    done = run_python(str(script), str(tmp_path / "out"))  # MLflow looks once in a process
    assert done.returncode == 0, done.stderr
    [run] = database.runs("Default")
    assert run.tags["mlflow.source.git.commit"]
    assert "moonshine" not in str(run.tags)


def test_a_point_has_the_time_of_its_log_in_milliseconds(
    database: Database, tmp_path: Path
) -> None:
    small_trainer(tmp_path / "out", MLflowCallback).train()
    [run] = database.runs("Default")
    [journal] = (tmp_path / "out").glob("tracking/*/journal.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    times = {r["step"]: r["time"] for r in records if "loss" in r.get("logs", {})}
    assert len(times) == 12
    found = {step: time for key, step, _, time in run.points if key == "train/loss"}
    assert found == {step: int(time * 1000) for step, time in times.items()}


def test_settings_come_from_the_environment(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "Größe")
    monkeypatch.setenv("MLFLOW_TAGS", '{"release.candidate": "RC1", "number": 2}')
    monkeypatch.setenv("MLFLOW_FLATTEN_PARAMS", "1")
    monkeypatch.setenv("MLFLOW_MAX_LOG_PARAMS", "3")
    config = {"labels": {"0": "cat", "1": {"a": "dog"}}, "size": 1, "more": 2}
    small_trainer(tmp_path / "out", MLflowCallback, config=config).train()
    [run] = database.runs("Größe")
    assert run.parameters == {"labels.0": "cat", "labels.1.a": "dog", "size": "1"}
    assert (run.tags["release.candidate"], run.tags["number"]) == ("RC1", "2")
    small_trainer(tmp_path / "again", MLflowCallback).train()
    assert len(database.runs("Größe")) == 2


def test_long_values_many_parameters_and_unusual_names_are_logged(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config: dict[str, Any] = {f"p{number}": "ü" * 250 for number in range(500)}
    config |= {"id2label": "x" * 7000, "naïve?": 1, "a:b/c d": 2, "n" * 300: 3, "empty": ""}
    made = small_trainer(tmp_path / "out", MLflowCallback, config=config)
    made.train()
    [run] = database.runs("Default")
    assert [run.parameters[f"p{number}"] for number in range(500)] == ["ü" * 250] * 500
    assert run.parameters["id2label"] == "x" * 5999 + "…"
    assert run.parameters["naïve_"] == "1"
    assert run.parameters["a:b/c d"] == "2"
    assert run.parameters["n" * 250] == "3"
    assert run.parameters["empty"] == ""
    assert run.values() == logged_points(made)
    assert "id2label: " in caplog.text and "6000" in caplog.text


def test_a_name_that_mlflow_refuses_is_changed(database: Database, tmp_path: Path) -> None:
    made = small_trainer(tmp_path / "out", MLflowCallback, config={"a//b": 1, "fine": 2})
    made.add_callback(At(5, lambda: made.log({"x/../y": 1.0, "good": 2.0})))
    made.train()
    [run] = database.runs("Default")
    assert run.parameters["fine"] == "2"
    assert run.parameters["learning_rate"] == "0.05"
    expected = logged_points(made)
    expected["train/x/__/y", 5] = expected.pop(("train/x/../y", 5))
    assert run.values() == expected


def test_nan_and_infinities_are_points(database: Database, tmp_path: Path) -> None:
    made = small_trainer(tmp_path / "out", MLflowCallback)
    odd = {"nan": math.nan, "high": math.inf, "low": -math.inf}
    made.add_callback(At(5, lambda: made.log(dict(odd))))
    made.train()
    [run] = database.runs("Default")
    [(step, value)] = run.of("train/nan")
    assert (step, math.isnan(value)) == (5, True)
    # MLflow's databases store the largest float instead of infinity.
    assert run.of("train/high") == [(5, sys.float_info.max)]
    assert run.of("train/low") == [(5, -sys.float_info.max)]


def test_an_existing_point_is_not_added_again(
    tracker: MLflowTracker, database: Database, tmp_path: Path
) -> None:
    now = 1_790_000_000.1239999
    points = [Point(f"m{n}", value, 7, now) for n, value in enumerate((0.1, math.nan, math.inf))]
    tracker.open(opening(tmp_path))
    tracker.log_metrics(points)
    tracker.log_metrics(points)
    tracker.log_metrics([Point("new", 1.0, 8, now + 1), *points])
    [run] = database.runs("Default")
    assert sorted((key, step) for key, step, _, _ in run.points) == [
        ("m0", 7),
        ("m1", 7),
        ("m2", 7),
        ("new", 8),
    ]
    assert {time for key, _, _, time in run.points if key != "new"} == {1_790_000_000_123}


def test_a_run_whose_id_was_lost_during_opening_is_found_again(
    tracker: MLflowTracker, database: Database, tmp_path: Path
) -> None:
    first = tracker.open(opening(tmp_path))
    assert MLflowTracker().open(opening(tmp_path)) == first
    other = tmp_path / "tracking" / "20260101-000000-abcdef" / "mlflow-2"
    assert MLflowTracker().open(opening(tmp_path, folder=other)) != first
    assert len(database.runs("Default")) == 2


def test_a_run_opened_by_the_user_is_used_and_stays_open(
    database: Database, tmp_path: Path
) -> None:
    with mlflow.start_run(run_name="mine") as mine:
        made = small_trainer(tmp_path / "out", MLflowCallback)
        made.train()
        assert mlflow.active_run().info.run_id == mine.info.run_id
        [run] = database.runs("Default")
        assert (run.id, run.name, run.status) == (mine.info.run_id, "mine", "RUNNING")
        assert run.values() == logged_points(made)
        mlflow.log_metric("after", 1.0)
    [run] = database.runs("Default")
    assert run.status == "FINISHED"
    assert run.of("after") == [(0, 1.0)]


def test_an_experiment_set_by_the_user_is_used(database: Database, tmp_path: Path) -> None:
    mlflow.set_experiment("chosen")
    small_trainer(tmp_path / "out", MLflowCallback).train()
    assert len(database.runs("chosen")) == 1
    assert database.runs("Default") == []


def test_nested_runs_are_opened_inside_the_active_one(database: Database, tmp_path: Path) -> None:
    with mlflow.start_run(experiment_id=mlflow.create_experiment("outer")) as outer:
        made = small_trainer(tmp_path / "out", MLflowCallback(nested=True))
        made.train()
        made.train()
        assert mlflow.active_run().info.run_id == outer.info.run_id
    parent, first, second = database.runs("outer")
    assert (parent.id, parent.points) == (outer.info.run_id, [])
    assert {run.tags["mlflow.parentRunId"] for run in (first, second)} == {outer.info.run_id}
    assert {run.status for run in (first, second)} == {"FINISHED"}
    assert len(first.of("train/loss")) == len(second.of("train/loss")) == 12


def test_parent_run_id_names_the_parent(database: Database, tmp_path: Path) -> None:
    with mlflow.start_run() as outer:
        pass
    small_trainer(tmp_path / "out", MLflowCallback(parent_run_id=outer.info.run_id)).train()
    _, run = database.runs("Default")
    assert run.tags["mlflow.parentRunId"] == outer.info.run_id


def test_run_id_continues_a_run_and_marks_it_running(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow.start_run(run_name="before") as before:
        mlflow.log_metric("old", 1.0)
    monkeypatch.setenv("MLFLOW_RUN_ID", before.info.run_id)
    seen: list[str] = []
    look = At(6, lambda: seen.append(database.runs("Default")[0].status))
    made = small_trainer(tmp_path / "out", MLflowCallback(delivery="inline"), look)
    made.train()
    [run] = database.runs("Default")
    assert (run.id, run.name, run.status) == (before.info.run_id, "before", "FINISHED")
    assert seen == ["RUNNING"]
    assert run.of("old") == [(0, 1.0)]
    assert run.of("train/loss") == [
        (s, v) for (k, s), v in logged_points(made).items() if k[6:] == "loss"
    ]


def test_changed_parameters_of_a_continued_run_become_tags(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path / "out", MLflowCallback)
    made.train()
    [run] = database.runs("Default")
    again = MLflowCallback(run_id=run.id)
    changed = small_trainer(tmp_path / "new", again, learning_rate=0.5, config={"size": 3})
    changed.train()
    [run] = database.runs("Default")
    assert run.parameters["learning_rate"] == "0.05"
    assert run.tags["changed.learning_rate"] == "0.5"
    assert run.parameters["size"] == "3"
    assert "changed.learning_rate" in caplog.text and "0.05" in caplog.text
    assert len(run.of("train/loss")) == 24


@pytest.mark.parametrize("what", ["run", "experiment"])
def test_a_deleted_run_or_experiment_is_reported_and_delivered_once_restored(
    what: str, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("gone")
    run_id = client.create_run(experiment).info.run_id
    if what == "run":
        client.delete_run(run_id)
        callback = MLflowCallback(run_id=run_id, flush_limit=2)
    else:
        client.delete_experiment(experiment)
        callback = MLflowCallback(experiment_name="gone", flush_limit=2)
    reported = At(12, lambda: wait_until(lambda: f"{what}s restore --{what}-id" in caplog.text))
    made = small_trainer(tmp_path / "out", callback, reported)
    made.train()
    assert made.state.global_step == 12
    client.restore_experiment(experiment) if what == "experiment" else client.restore_run(run_id)
    assert replay(tmp_path / "out").returncode == 0
    assert database.runs("gone")[-1].values() == logged_points(made)


@pytest.mark.parametrize(
    ("raised", "status"),
    [(ArithmeticError("broken"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_the_status_says_how_a_training_broke(
    raised: BaseException, status: str, database: Database, tmp_path: Path
) -> None:
    def fail() -> None:
        raise raised

    made = small_trainer(tmp_path / "out", MLflowCallback, At(7, fail))
    with pytest.raises(type(raised)):
        made.train()
    [run] = database.runs("Default")
    assert run.status == status
    assert [step for step, _ in run.of("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert mlflow.active_run() is None


def test_a_second_training_gets_its_own_run_and_an_evaluation_goes_to_the_last(
    database: Database, tmp_path: Path
) -> None:
    made = small_trainer(tmp_path / "out", MLflowCallback(delivery="inline"))
    made.train()
    assert mlflow.active_run() is None
    made.train()
    made.evaluate(metric_key_prefix="test")
    first, second = database.runs("Default")
    assert (first.status, second.status) == ("FINISHED", "FINISHED")
    assert len(first.of("train/loss")) == len(second.of("train/loss")) == 12
    assert (len(first.of("test/loss")), len(second.of("test/loss"))) == (0, 1)


def test_the_fluent_api_in_the_training_thread_reaches_the_open_run(
    database: Database, tmp_path: Path
) -> None:
    def log() -> None:
        wait_until(lambda: mlflow.active_run() is not None)
        mlflow.log_metric("mine", 3.0, step=6)
        mlflow.set_tag("note", "mine")
        with mlflow.start_run(nested=True, run_name="inner"):
            mlflow.log_metric("inner", 1.0)

    made = small_trainer(tmp_path / "out", MLflowCallback, At(6, log))
    made.train()
    assert mlflow.active_run() is None
    run, inner = database.runs("Default")
    assert run.of("mine") == [(6, 3.0)]
    assert run.tags["note"] == "mine"
    assert run.status == "FINISHED"
    assert {key: value for key, value in run.values().items() if key[0] != "mine"} == logged_points(
        made
    )
    assert inner.tags["mlflow.parentRunId"] == run.id
    with mlflow.start_run():  # the training's run does not block it
        pass


def test_ending_the_run_manually_loses_no_data(database: Database, tmp_path: Path) -> None:
    def end() -> None:
        wait_until(lambda: mlflow.active_run() is not None)
        mlflow.end_run("KILLED")

    made = small_trainer(tmp_path / "out", MLflowCallback, At(6, end))
    made.train()
    [run] = database.runs("Default")
    assert (run.status, run.values()) == ("FINISHED", logged_points(made))


def test_a_run_in_another_store_is_not_the_active_one(
    database: Database, made_database: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    shutil.copy(made_database, other)
    active: list[Any] = []
    callback = MLflowCallback(tracking_uri=f"sqlite:///{other}", delivery="inline")
    look = At(6, lambda: active.append(mlflow.active_run()))
    with mlflow.start_run() as mine:
        small_trainer(tmp_path / "out", callback, look).train()
    assert [run.info.run_id for run in active] == [mine.info.run_id]
    small_trainer(tmp_path / "out", callback, look).train()
    assert active[1:] == [None]
    assert len(Database(other).runs("Default")) == 2
    [run] = database.runs("Default")
    assert run.points == []


def test_a_training_leaves_the_process_unchanged(database: Database, tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        variables = {name: value for name, value in os.environ.items() if "MLFLOW" in name}
        signals = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return variables, mlflow.get_tracking_uri(), sys.excepthook, signals, mlflow.active_run()

    before = state()
    small_trainer(tmp_path / "out", MLflowCallback(experiment_name="new", tags={"a": "b"})).train()
    assert state() == before
    assert len(database.runs("new")) == 1


def test_a_run_that_is_deleted_in_the_middle_is_replaced(
    database: Database, tmp_path: Path
) -> None:
    def delete() -> None:
        wait_until(lambda: mlflow.active_run() is not None)
        mlflow.delete_run(mlflow.active_run().info.run_id)

    made = small_trainer(tmp_path / "out", MLflowCallback, At(6, delete))
    made.train()
    assert mlflow.active_run() is None
    runs = {run.status: run for run in database.runs("Default")}
    assert runs.keys() == {"RUNNING", "FINISHED"}
    assert runs["FINISHED"].values() == logged_points(made)


def test_checkpoints_become_artifacts_with_log_artifacts(
    database: Database, tmp_path: Path
) -> None:
    callback = MLflowCallback(log_artifacts=True)
    made = small_trainer(tmp_path / "out", callback, save_strategy="epoch", save_total_limit=1)
    made.train()
    [run] = database.runs("Default")
    client = mlflow.MlflowClient()
    assert [entry.path for entry in client.list_artifacts(run.id)] == [
        "checkpoint-12",
        "checkpoint-4",
        "checkpoint-8",
    ]
    saved = Path(client.download_artifacts(run.id, "checkpoint-12"))
    [newest] = (tmp_path / "out").glob("checkpoint-*")
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == {
        path.name: path.read_bytes() for path in newest.iterdir()
    }


def test_a_delivery_process_delivers_the_same(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    made = small_trainer(tmp_path / "out", MLflowCallback(delivery="process", flush_limit=90))
    made.train()
    [run] = database.runs("Default")
    assert (run.status, run.values()) == ("FINISHED", logged_points(made))
    assert run.tags["mlflow.source.name"] == sys.argv[0]
    assert caplog.text == ""


def test_the_callback_can_be_pickled_before_during_and_after_a_training(
    tmp_path: Path, database: Database
) -> None:
    callback = MLflowCallback()
    copies = pickled_copies(tmp_path / "out", callback)
    assert [(type(copy), copy.session) for copy in copies] == [(type(callback), None)] * 3
    assert all(copy.tracker.settings() for copy in copies)
