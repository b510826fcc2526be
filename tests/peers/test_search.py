"""Our trackers in a hyperparameter search of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import transformers
from line_tracker import LineTracker
from small_training import TinyModel, build

from callback_core.tracking import TrackerCallback, Upload


class CheckpointTracker(LineTracker):
    """Writes whose checkpoints it gets."""

    takes_checkpoints = True

    def log_files(self, upload: Upload) -> None:
        state = json.loads((upload.path / "trainer_state.json").read_text("utf-8"))
        self._write(called="files", name=upload.name, trial=state["trial_params"])


def uploads(output_dir: Path) -> list[tuple[str, Any]]:
    lines = (output_dir / "lines.jsonl").read_text("utf-8").splitlines()
    called = [json.loads(line) for line in lines]
    return [(line["name"], line["trial"]) for line in called if line["called"] == "files"]


def searching(output_dir: Path, *callbacks: Any) -> Any:
    """Return a trainer that saves two checkpoints, and whose callback uploads them."""
    tracker = TrackerCallback(CheckpointTracker(f"{output_dir}/lines.jsonl"), flush_limit=300)
    return build("transformers", output_dir, *callbacks, tracker, save_strategy="epoch")


class Trial(transformers.TrainerCallback):
    """Makes each training a trial, as a search does."""

    def __init__(self, rates: list[float]) -> None:
        self.rates = rates

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        state.is_hyper_param_search = True
        state.trial_params = {"learning_rate": self.rates.pop(0)}


def test_each_trial_s_checkpoints_are_uploaded_from_its_own_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = searching(tmp_path, Trial([0.1, 0.2, 0.1]))
    for number in range(3):
        run_dir = str(tmp_path / f"run-{number}")
        monkeypatch.setattr(trainer, "_get_output_dir", lambda trial, run_dir=run_dir: run_dir)
        trainer.train()
    names = ["checkpoint-5", "checkpoint-10"]
    assert uploads(tmp_path) == [
        (name, {"learning_rate": rate}) for rate in (0.1, 0.2, 0.1) for name in names
    ]


@pytest.mark.parametrize("names", [None, lambda trial: f"trial/{trial.number}"])
def test_a_search_with_optuna_uploads_the_checkpoints_of_each_trial(
    tmp_path: Path, names: Any
) -> None:
    trainer = searching(tmp_path)
    trainer.model_init = lambda: TinyModel()
    rates = [0.1, 0.2]
    trainer.hyperparameter_search(
        hp_space=lambda trial: {
            "learning_rate": trial.suggest_float("learning_rate", 0.0, 1.0),
        },
        hp_name=names,
        n_trials=2,
        backend="optuna",
        sampler=optuna.samplers.GridSampler({"learning_rate": rates}, seed=0),
    )
    found = uploads(tmp_path)
    assert [name for name, _ in found] == ["checkpoint-5", "checkpoint-10"] * 2
    assert found[0][1] == found[1][1]
    assert {trial["learning_rate"] for _, trial in found} == set(rates)
