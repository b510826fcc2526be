"""Trainings that are logged to runs of Azure's SDK v1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from azureml.core import Run
from v1_service import V1Service

from callback_azureml import AzureMLCallback
from callback_contract.testing import replay
from trainer_torch.testing import logged_points, small_trainer


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[V1Service]:
    with V1Service(tmp_path_factory.mktemp("v1")) as made:
        yield made


@pytest.fixture
def job(service: V1Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Simulate a job of SDK v1, and return its run."""
    run = f"run_{tmp_path.name}"
    for name, value in service.begin_job(run).items():
        monkeypatch.setenv(name, value)
    return run


def test_the_run_of_the_job_gets_metrics_at_their_steps_and_stays_open(
    job: str, service: V1Service, tmp_path: Path
) -> None:
    made = small_trainer(tmp_path / "out", AzureMLCallback())
    made.train()
    assert service.values(job) == logged_points(made)
    assert service.changes == []


def test_a_given_run_gets_metrics_at_their_steps_and_stays_open(
    job: str, service: V1Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.get_context(allow_offline=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "azureml://127.0.0.1:9/a/workspace/that/is/away")
    made = small_trainer(tmp_path / "out", AzureMLCallback(run))
    made.train()
    assert service.values(job) == logged_points(made)
    assert service.changes == []


def test_a_replay_delivers_what_an_unreachable_service_missed(
    job: str, service: V1Service, tmp_path: Path
) -> None:
    service.mode = "gone"
    try:
        made = small_trainer(tmp_path / "out", AzureMLCallback(flush_limit=1))
        made.train()
    finally:
        service.mode = "ok"
    assert made.state.global_step == 12
    done = replay(tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert service.values(job) == logged_points(made)


def test_the_offline_run_gets_no_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.get_context()
    assert "AZUREML_RUN_ID" not in os.environ
    callback = AzureMLCallback(run, log_artifacts=True)
    made = small_trainer(tmp_path / "out", callback, save_strategy="epoch")
    made.train()
    lines = capsys.readouterr().out.splitlines()
    printed = [
        (line.removeprefix("Attempted to log scalar metric ").removesuffix(":"), float(value))
        for line, value in pairwise(lines)
        if line.startswith("Attempted to log scalar metric ")
    ]
    assert printed == [(name, value) for (name, _), value in logged_points(made).items()]
    folders = [line.split()[4] for line in lines if line.startswith("Attempted to track folder")]
    assert folders == ["checkpoint-4", "checkpoint-8", "checkpoint-12"]


@pytest.mark.parametrize("given", ["run_1", 7, object()])
def test_an_object_that_is_not_a_run_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="azureml_run"):
        AzureMLCallback(given)


def test_a_delivery_process_cannot_use_a_given_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="process"):
        AzureMLCallback(Run.get_context(), delivery="process")
