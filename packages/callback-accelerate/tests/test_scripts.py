from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import script
import script_of_mlflow
from mlflow import MlflowClient
from recording import Stored

import callback_mlflow
import callback_tensorboard
from callback_contract.testing import PreparedPython, environment, run_python, unused_port

INSTALLED = (callback_mlflow, callback_tensorboard)
"""Packages that the scripts find by their entry points."""

FAILING = ("raise", "interrupt")


@pytest.fixture(scope="module")
def prepared() -> Iterator[PreparedPython]:
    """Return what runs a script in a process of its own, with its slow modules imported."""
    modules = ["accelerate", "mlflow", "torch.utils.tensorboard"]
    with PreparedPython(modules, environment()) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("end", "finished"),
        ("no_end", "finished"),
        ("raise", "failed"),
        ("interrupt", "interrupted"),
    ],
)
def test_the_end_of_the_script_ends_the_run(
    prepared: PreparedPython, how: str, status: str, tmp_path: Path
) -> None:
    done = prepared.run(script.__file__, str(tmp_path), how)
    stored = Stored(tmp_path / "file")
    assert [call["status"] for call in stored.of("close")] == [status], done.stderr
    assert [step for _, step, _ in stored.points] == list(range(8 if how in FAILING else 10))


@pytest.mark.slow
def test_of_two_processes_only_the_main_one_records(tmp_path: Path) -> None:
    launcher = (
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        f"--master-port={unused_port()}",
    )
    done = run_python(*launcher, script.__file__, str(tmp_path), "end")
    assert done.returncode == 0, done.stderr
    stored = Stored(tmp_path / "file")
    assert [step for _, step, _ in stored.points] == list(range(10))
    assert len(stored.runs) == 1
    assert len(list((tmp_path / "out" / "tracking").iterdir())) == 1


@pytest.mark.slow
def test_a_killed_script_continues_its_run_with_each_point_once_in_mlflow(
    prepared: PreparedPython, tmp_path: Path
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for how in ("kill", "resume"):
        done = prepared.run(
            script_of_mlflow.__file__,
            str(tmp_path),
            how,
            cwd=tmp_path,
            variables={"MLFLOW_TRACKING_URI": uri},
        )
        assert (done.returncode == 0) == (how == "resume"), done.stderr
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("lines")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(10))
    assert (run.info.run_name, run.info.status) == ("one", "FINISHED")
    assert run.data.params["lr"] == "0.1"
