"""TensorBoardCallback in transformers' trainer and in ours: directories and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_training import TRAINERS, build
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callback_tensorboard import TensorBoardCallback

every_trainer = pytest.mark.parametrize("trainer", TRAINERS)


def curves(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the steps and values of each curve in a run's directory."""
    events = EventAccumulator(str(directory)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@every_trainer
def test_trainings_that_share_a_directory_have_one_each_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "shared"))
    for name in ("one", "two"):
        build(trainer, tmp_path / name, TensorBoardCallback()).train()
    runs = [curves(directory) for directory in (tmp_path / "shared").iterdir()]
    assert [[step for step, _ in run["train/loss"]] for run in runs] == [[*range(1, 11)]] * 2


@every_trainer
def test_a_resumed_training_continues_in_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: str
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "shared"))
    changed: dict[str, Any] = {"save_strategy": "steps", "save_steps": 5}
    build(trainer, tmp_path / "out", TensorBoardCallback(), **changed).train()
    again = build(trainer, tmp_path / "out", TensorBoardCallback(), **changed)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-5"))
    [directory] = (tmp_path / "shared").iterdir()
    assert [step for step, _ in curves(directory)["train/loss"]] == [*range(1, 11)]


@every_trainer
def test_names_that_the_rewriting_of_prefixes_brings_together_stay_apart(
    tmp_path: Path, trainer: str
) -> None:
    callback = TensorBoardCallback()
    made = build(trainer, tmp_path, callback)
    names = ["eval_x", "eval/x", "train/eval/x", "train/x", "x", "test_x", "test/x"]
    logs = {name: -float(number) for number, name in enumerate(names, 1)}
    made.log(dict(logs))
    made.train()
    assert callback.session is not None
    callback.session.close()
    runs = [curves(directory) for directory in (tmp_path / "runs").iterdir()]
    found = [points for run in runs for points in run.values() if points[0][1] < 0]
    assert sorted(value for [(_, value)] in found) == sorted(logs.values())
