"""Trainings that are logged to a real MLflow server, which is sometimes unreachable."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kills
import pytest
from kills import Slow

from callback_contract.testing import replay, run_python, wait_until
from callback_mlflow import MLflowCallback
from callback_mlflow.testing import MLflowServer, Runs
from trainer_torch.testing import At, comparable, logged_points, small_trainer

KILLS = int(os.environ.get("KILLS", "6"))
"""The number of kills; for 100: KILLS=100 pytest tests/test_server.py -k killed"""


@pytest.fixture(scope="session")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MLflowServer]:
    """Return a server that is not started yet."""
    made = MLflowServer(tmp_path_factory.mktemp("server"))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def kept(
    process: MLflowServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any, float]:
    """Train while the server is down, then start it; return directory, logs and seconds."""
    output_dir = tmp_path_factory.mktemp("kept")
    callback = MLflowCallback(
        tracking_uri=process.uri, experiment_name="kept", flush_limit=1, log_artifacts=True
    )
    made = small_trainer(
        output_dir, callback, run_name="late", save_strategy="epoch", save_total_limit=1
    )
    begun = time.monotonic()
    made.train()
    took = time.monotonic() - begun
    process.start()
    process.wait()
    return output_dir, logged_points(made), took


@pytest.fixture(scope="session")
def server(process: MLflowServer, kept: Any) -> Runs:
    return Runs(process.uri)


@pytest.fixture
def callback(process: MLflowServer, server: Runs, request: pytest.FixtureRequest) -> Any:
    """Return a function that makes a callback, whose experiment has the test's name."""

    def make(**settings: Any) -> MLflowCallback:
        usual = {"tracking_uri": process.uri, "experiment_name": request.node.name}
        return MLflowCallback(**{"flush_limit": 60, **usual, **settings})

    return make


def test_a_run_is_closed_even_if_its_address_cannot_be_printed(
    callback: Any, server: Runs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """MLflow prints an emoji before the address."""
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(output):
        small_trainer(tmp_path, callback()).train()
    [run] = server.runs(request.node.name)
    assert run.status == "FINISHED"
    assert "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT" not in os.environ


def test_an_unreachable_server_does_not_delay_the_training_and_a_replay_delivers(
    kept: tuple[Path, Any, float], server: Runs
) -> None:
    output_dir, logged, took = kept
    assert took < 200  # it waits a second, and imports MLflow in that time
    done = replay(output_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = server.runs("kept")
    assert (run.name, run.status, run.values()) == ("late", "FINISHED", logged)
    assert "checkpoint-4/manifest.json" in server.artifacts(run.id, "checkpoint-4")
    again = replay(output_dir)
    assert again.returncode == 0, again.stdout + again.stderr
    assert server.runs("kept") == [run]


def test_the_server_has_the_whole_training(
    callback: Any, server: Runs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = {f"p{number}": "ü" * 6000 for number in range(120)} | {"empty": ""}
    sent = callback(log_artifacts=True, tags={"stage": "test"})
    made = small_trainer(
        tmp_path / "out", sent, config=config, save_strategy="epoch", run_name="full"
    )
    made.train()
    [run] = server.runs(request.node.name)
    assert (run.name, run.status) == ("full", "FINISHED")
    assert run.values() == logged_points(made)
    assert run.parameters["learning_rate"] == "0.05"
    assert [run.parameters[f"p{number}"] for number in range(120)] == ["ü" * 6000] * 120
    assert run.parameters["empty"] == ""
    assert run.tags["stage"] == "test"
    for step in (4, 8, 12):
        saved = tmp_path / "out" / f"checkpoint-{step}"
        sizes = {f"{saved.name}/{file.name}": file.stat().st_size for file in saved.iterdir()}
        assert server.artifacts(run.id, saved.name) == sizes
    weights = (tmp_path / "out" / "checkpoint-12" / "model.safetensors").read_bytes()
    assert server.artifact(run.id, "checkpoint-12/model.safetensors") == weights


def test_a_failed_run_is_marked_and_continued_by_a_resume(
    callback: Any, server: Runs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = small_trainer(tmp_path / "whole")
    whole.train()

    def fail() -> None:
        raise ArithmeticError("broken")

    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
    with pytest.raises(ArithmeticError):
        small_trainer(tmp_path / "out", callback(), At(8, fail), **saving).train()
    [run] = server.runs(request.node.name)
    assert run.status == "FAILED"
    resumed = small_trainer(tmp_path / "out", callback(), **saving)
    resumed.train(resume_from_checkpoint=True)
    [again] = server.runs(request.node.name)
    assert (again.id, again.status) == (run.id, "FINISHED")
    assert comparable(again.values()) == comparable(logged_points(whole))


def test_a_delivery_process_closes_the_run_of_a_killed_training(
    callback: Any, server: Runs, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    code = """
import os, sys
from pathlib import Path
from callback_mlflow import MLflowCallback
from trainer_torch.testing import At, small_trainer
sent = MLflowCallback(tracking_uri=sys.argv[2], experiment_name=sys.argv[3], delivery="process")
small_trainer(Path(sys.argv[1]), sent, At(9, lambda: os.kill(os.getpid(), 9))).train()
"""
    done = run_python("-c", code, str(tmp_path), server.uri, request.node.name)
    assert done.returncode == -signal.SIGKILL, done.stderr

    wait_until(lambda: [run.status for run in server.runs(request.node.name)] == ["FAILED"])
    [run] = server.runs(request.node.name)
    assert [step for step, _ in run.of("train/loss")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_killed_and_resumed_trainings_have_no_duplicate_points(
    process: MLflowServer, server: Runs, tmp_path: Path
) -> None:
    done = run_python(
        kills.__file__, process.uri, str(tmp_path), str(KILLS), "7", timeout=60 * KILLS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trainings = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(training["killed"] for training in trainings) == KILLS
    uninterrupted = {(key, step): value for key, step, value in trainings[0]["logged"]}
    for training in trainings:
        *dead, run = server.runs(training["experiment"])
        assert run.values().keys() == uninterrupted.keys()
        assert comparable(run.values()) == comparable(uninterrupted)
        assert run.status == "FINISHED"
        for other in dead:  # killed before there was a checkpoint to resume from
            assert comparable(other.values()).items() <= comparable(uninterrupted).items()
            assert other.status == "RUNNING"


def test_a_temporary_outage_loses_no_point_and_delays_no_step(
    process: MLflowServer,
    callback: Any,
    server: Runs,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    ends: list[float] = []

    def stop() -> None:
        process.stop()
        ends.append(time.monotonic())

    def start() -> None:
        ends.append(time.monotonic())
        process.start()

    made = small_trainer(
        tmp_path / "out", callback(flush_limit=120), Slow(0.1), At(4, stop), At(9, start)
    )
    made.train()
    assert ends[1] - ends[0] < 100  # 5 steps of 0.1 s
    process.wait()
    [run] = server.runs(request.node.name)
    assert (run.status, run.values()) == ("FINISHED", logged_points(made))
