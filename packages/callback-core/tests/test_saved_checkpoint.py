"""Which directory is the checkpoint that was just saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from arguments_for_tests import Arguments

from callback_core import TrainerState, saved_checkpoint


def trial(number: int, **changed: Any) -> TrainerState:
    """Return the state of a trial at step 4."""
    values = {"trial_params": {"lr": number}, "log_history": [{"loss": float(number), "step": 4}]}
    return TrainerState(global_step=4, is_hyper_param_search=True, **values | changed)


def save(state: TrainerState, folder: Path, *, at: int = 0) -> Path:
    """Save a checkpoint in `folder`, as transformers does, at this time."""
    checkpoint = folder / f"checkpoint-{state.global_step}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    file = checkpoint / "trainer_state.json"
    state.save_to_json(str(file))
    os.utime(file, (at, at))
    return checkpoint


def found(state: TrainerState, output_dir: Path) -> Path | None:
    return saved_checkpoint(Arguments(str(output_dir)), state)


def test_outside_of_a_search_it_is_below_the_output_directory(tmp_path: Path) -> None:
    assert found(TrainerState(global_step=4), tmp_path) == tmp_path / "checkpoint-4"


def test_a_trainer_that_passes_the_directory_is_believed(tmp_path: Path) -> None:
    given = str(tmp_path / "elsewhere")
    assert saved_checkpoint(Arguments("out"), trial(1), given) == tmp_path / "elsewhere"


def test_it_is_absolute_when_the_output_directory_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = TrainerState(global_step=4)
    assert saved_checkpoint(Arguments("out"), state) == tmp_path / "out" / "checkpoint-4"
    given = saved_checkpoint(Arguments("out"), state, "out/checkpoint-4")
    assert given == tmp_path / "out" / "checkpoint-4"


def test_in_a_search_it_is_in_the_directory_of_the_trial(tmp_path: Path) -> None:
    for number in (0, 1, 2):
        save(trial(number), tmp_path / f"run-{number}", at=9 - number)
    save(TrainerState(global_step=4), tmp_path, at=9)
    assert found(trial(1), tmp_path) == tmp_path / "run-1" / "checkpoint-4"


@pytest.mark.parametrize("name", ["small", "size/small"])
def test_a_trial_s_directory_may_have_a_name(tmp_path: Path, name: str) -> None:
    saved = save(trial(1, trial_name=name), tmp_path / name)
    assert found(trial(1, trial_name=name), tmp_path) == saved


def test_of_two_trials_that_are_the_same_the_newer_one_is_meant(tmp_path: Path) -> None:
    save(trial(1), tmp_path / "run-0", at=1)
    newer = save(trial(1), tmp_path / "run-1", at=2)
    assert found(trial(1), tmp_path) == newer


def test_other_callbacks_may_have_logged_since(tmp_path: Path) -> None:
    saved = save(trial(1), tmp_path / "run-1")
    state = trial(1)
    state.log_history.append({"size": 5, "step": 4})
    assert found(state, tmp_path) == saved


@pytest.mark.parametrize(
    "other",
    [
        {"trial_params": {"lr": 7}},
        {"log_history": [{"loss": 0.5, "step": 4}]},
        {"log_history": [{"loss": 1.0, "step": 4}, {"loss": 0.5, "step": 5}]},
    ],
)
def test_another_training_s_checkpoint_is_never_taken(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    save(trial(1, **other), tmp_path / "run-1")
    (tmp_path / "run-2" / "checkpoint-4").mkdir(parents=True)
    (tmp_path / "run-3" / "checkpoint-4").mkdir(parents=True)
    (tmp_path / "run-3" / "checkpoint-4" / "trainer_state.json").write_text("{")
    assert found(trial(1), tmp_path) is None


def test_a_trial_that_logged_nan_finds_its_checkpoint(tmp_path: Path) -> None:
    state = trial(1, log_history=[{"loss": float("nan"), "step": 4}])
    assert found(state, tmp_path) is None
    assert save(state, tmp_path / "run-1") == found(state, tmp_path)
