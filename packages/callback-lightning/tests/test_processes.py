"""Trainings in processes of their own: killed ones, two of one training, and the README's."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
import training_of_two
import training_to_kill
from lightning_for_tests import BATCHES, runs_in
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import callback_mlflow
from callback_contract.testing import PreparedPython, environment

INSTALLED = (callback_mlflow,)
"""What the example of the README imports."""

README = Path(__file__).parents[1] / "README.md"
MOST_LINES = 10


@pytest.fixture(scope="module")
def prepared() -> Iterator[PreparedPython]:
    """Return what runs a script in a process of its own, with Lightning and MLflow imported."""
    with PreparedPython(["lightning.pytorch", "mlflow"], environment()) as running:
        yield running


def train(prepared: PreparedPython, root: Path, how: str, kill_at: int) -> int:
    variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db"}
    script = training_to_kill.__file__
    return prepared.run(
        script, str(root), how, str(kill_at), cwd=root, variables=variables
    ).returncode


@pytest.mark.slow
@pytest.mark.parametrize("how", ["callbacks", "logger"])
def test_each_point_is_once_in_each_store(
    prepared: PreparedPython, how: str, tmp_path: Path
) -> None:
    assert train(prepared, tmp_path, how, 2 * BATCHES + 3) == -signal.SIGKILL
    assert train(prepared, tmp_path, how, -1) == 0
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs(["0"])
    steps = [*range(1, 3 * BATCHES + 1)]
    curve = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(metric.step for metric in curve) == steps
    evaluations = client.get_metric_history(run.info.run_id, "eval/loss")
    assert sorted(metric.step for metric in evaluations) == steps[BATCHES - 1 :: BATCHES]
    assert run.info.status == "FINISHED"
    (directory,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(directory)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == steps


@pytest.mark.slow
@pytest.mark.parametrize(("how", "strategy"), [("callbacks", "ddp"), ("logger", "ddp_spawn")])
def test_one_process_tracks_and_both_do_what_either_asks_for(
    prepared: PreparedPython, how: str, strategy: str, tmp_path: Path
) -> None:
    done = prepared.run(training_of_two.__file__, str(tmp_path), how, strategy, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    main, other = (json.loads((tmp_path / f"seen-{rank}.json").read_text()) for rank in (0, 1))
    assert main["steps"] == other["steps"] == [1, 2, 3, 4, 5, 6]
    assert main["logs"] == other["logs"] == [1, 2, 3, 4, 5, 6]
    assert (main["saved"], other["saved"]) == ([2, 4], [2])
    assert (main["dummy"], other["dummy"]) == (how == "callbacks", True)
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert (run.steps("train/loss"), run.status) == ([1, 2, 3, 4, 5, 6], "finished")
    assert [(name, step) for name, step, _ in run.uploads] == [
        ("checkpoint-2", 2),
        ("epoch=0-step=4", 4),
    ]


def example() -> list[str]:
    found = re.search(r"^```diff\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    return found[1].splitlines()


def test_a_user_adds_few_lines() -> None:
    assert 0 < len([line for line in example() if line.startswith("+")]) <= MOST_LINES


@pytest.mark.slow
def test_the_example_runs_before_and_after(prepared: PreparedPython, tmp_path: Path) -> None:
    for mark in "-+":
        folder = tmp_path / ("before" if mark == "-" else "after")
        folder.mkdir()
        code = "\n".join(line[1:] for line in example() if line[:1] in ("", " ", mark))
        script = folder / "example.py"
        script.write_text(code, "utf-8")
        variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        done = prepared.run(script, cwd=folder, variables=variables)
        assert done.returncode == 0, done.stderr
        with closing(sqlite3.connect(folder / "mlflow.db")) as database:
            query = "select step from metrics where key = 'train/loss' order by step"
            if mark == "+":
                assert [step for (step,) in database.execute(query)] == [*range(1, 41)]
