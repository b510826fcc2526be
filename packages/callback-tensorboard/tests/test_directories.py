"""The directory of each run, in a directory that several trainings share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tensorboard_for_tests import Run, points

from callback_tensorboard import TensorBoardCallback


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that the environment names for all trainings."""
    path = tmp_path / "shared"
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(path))
    return path


def curves(shared: Path) -> list[list[tuple[int, float]]]:
    return sorted(points(file.parent, "train/loss") for file in shared.rglob("*.tfevents.*[0-9]"))


def train(run: Run, value: float, begin: int = 0, **trial: Any) -> None:
    for name, what in trial.items():
        setattr(run.state, name, what)
    run.begin(begin)
    run.log(begin + 1, loss=value)
    run.end()


@pytest.mark.parametrize("delivery", ["thread", "process"])
def test_each_training_has_a_directory_of_its_own(
    shared: Path, tmp_path: Path, delivery: Any
) -> None:
    for number in range(3):
        train(Run(TensorBoardCallback(delivery=delivery), tmp_path / f"out-{number}"), number)
    assert curves(shared) == [[(1, 0.0)], [(1, 1.0)], [(1, 2.0)]]
    assert len([*shared.iterdir()]) == 3


def test_so_has_each_training_of_one_callback(shared: Path, tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path / "out")
    for value in (1, 2):
        train(run, value)
    assert curves(shared) == [[(1, 1.0)], [(1, 2.0)]]


@pytest.mark.parametrize("name", ["trial", None], ids=["of one name", "without names"])
def test_trials_never_share_a_directory(shared: Path, tmp_path: Path, name: str | None) -> None:
    run = Run(TensorBoardCallback(), tmp_path / "out", is_hyper_param_search=True)
    for value in (1, 2, 3):
        train(run, value, trial_name=name, trial_params={"width": value})
    assert curves(shared) == [[(1, 1.0)], [(1, 2.0)], [(1, 3.0)]]


def test_a_resumed_training_continues_in_its_directory(shared: Path, tmp_path: Path) -> None:
    first = TensorBoardCallback()
    train(Run(first, tmp_path / "out"), 1)
    train(Run(TensorBoardCallback(), tmp_path / "other"), 5)
    again = TensorBoardCallback()
    again.load_state_dict(first.state_dict())
    train(Run(again, tmp_path / "out"), 2, begin=1)
    assert len([*shared.iterdir()]) == 2
    assert [(1, 1.0), (2, 2.0)] in curves(shared)


def test_an_evaluation_after_training_adds_to_its_directory(shared: Path, tmp_path: Path) -> None:
    callback = TensorBoardCallback()
    run = Run(callback, tmp_path / "out")
    train(run, 1)
    run.log(1, eval_loss=0.25)
    callback.session.close("finished")
    [directory] = shared.iterdir()
    assert points(directory, "eval/loss") == [(1, 0.25)]
