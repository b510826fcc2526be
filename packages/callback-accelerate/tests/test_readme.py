from __future__ import annotations

import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

import callback_mlflow
from callback_contract.testing import replay, run_python

INSTALLED = (callback_mlflow,)
"""A package that the example finds by its entry point."""

README = Path(__file__).parents[1] / "README.md"
MOST_LINES = 10


def example() -> list[str]:
    found = re.search(r"^```diff\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None
    return found[1].splitlines()


def test_a_user_adds_few_lines() -> None:
    assert 0 < len([line for line in example() if line.startswith("+")]) <= MOST_LINES


@pytest.mark.slow
@pytest.mark.parametrize("mark", ["-", "+"])
def test_the_example_runs_before_and_after(mark: str, tmp_path: Path) -> None:
    lines = [line[1:] for line in example() if line[:1] in (" ", mark)]
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    variables = {"MLFLOW_TRACKING_URI": uri, "ACCELERATE_USE_CPU": "true"}
    done = run_python("-c", "\n".join(lines), cwd=tmp_path, variables=variables)
    assert done.returncode == 0, done.stderr
    if mark == "+":
        # The run's end waits half a minute for MLflow, which takes longer on a busy machine.
        delivered = replay(tmp_path / "out")
        assert delivered.returncode == 0, delivered.stderr
        experiment = MlflowClient(uri).get_experiment_by_name("lines")
        assert experiment is not None
        (run,) = MlflowClient(uri).search_runs([experiment.experiment_id])
        points = MlflowClient(uri).get_metric_history(run.info.run_id, "train/loss")
        assert [point.step for point in points] == list(range(100))
