from __future__ import annotations

from pathlib import Path

import pytest
from accelerate import Accelerator
from recording import FileCallback, Stored, new_accelerator, new_training, told

from callback_accelerate import continue_runs, make_trackers


def train(accelerator: Accelerator, steps: range, folder: Path, save_at: int | None = None) -> None:
    for step in steps:
        accelerator.log({"loss": step}, step=step)
        if step == save_at:
            accelerator.save_state(str(folder / "checkpoint"))


def interrupted_training(folder: Path, save_at: int = 2, *, continues: bool = True) -> None:
    """Train to step 4, save at one, and leave the training as a kill would, as far as it can be."""
    accelerator = new_training(folder)
    if continues:
        continue_runs(accelerator)
    train(accelerator, range(5), folder, save_at)
    accelerator.end_training()


def steps(folder: Path) -> list[int]:
    return [step for _, step, _ in Stored(folder / "file").points]


@pytest.mark.parametrize("save_at", [0, 2])
def test_a_loaded_checkpoint_continues_its_run_with_each_step_once(
    save_at: int, tmp_path: Path
) -> None:
    interrupted_training(tmp_path, save_at)
    accelerator = new_training(tmp_path)
    continue_runs(accelerator)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    train(accelerator, range(save_at + 1, 7), tmp_path)
    accelerator.end_training()
    assert steps(tmp_path) == list(range(7))
    assert len(Stored(tmp_path / "file").runs) == 1


def test_the_checkpoint_may_be_loaded_before_the_trackers_are_made(tmp_path: Path) -> None:
    interrupted_training(tmp_path)
    trackers = make_trackers([FileCallback(tmp_path / "file")], str(tmp_path / "out"))
    accelerator = new_accelerator(trackers, tmp_path)
    continue_runs(accelerator)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    accelerator.init_trackers("project")
    train(accelerator, range(3, 7), tmp_path)
    accelerator.end_training()
    assert steps(tmp_path) == list(range(7))


def test_a_checkpoint_from_before_the_first_log_continues_its_run(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path)
    continue_runs(accelerator)
    accelerator.save_state(str(tmp_path / "checkpoint"))
    train(accelerator, range(3), tmp_path)
    accelerator.end_training()
    accelerator = new_training(tmp_path)
    continue_runs(accelerator)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    train(accelerator, range(5), tmp_path)
    accelerator.end_training()
    assert steps(tmp_path) == list(range(5))
    assert len(Stored(tmp_path / "file").runs) == 1


def test_numbers_of_logs_go_on_after_resuming(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path)
    continue_runs(accelerator)
    for value in range(3):
        accelerator.log({"loss": value})
    accelerator.save_state(str(tmp_path / "checkpoint"))
    accelerator.log({"loss": 3})
    accelerator.end_training()
    accelerator = new_training(tmp_path)
    continue_runs(accelerator)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    for value in (3, 4):
        accelerator.log({"loss": value})
    accelerator.end_training()
    assert steps(tmp_path) == list(range(5))


def test_without_continue_runs_a_resumed_script_gets_a_new_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted_training(tmp_path, continues=False)
    accelerator = new_training(tmp_path)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    train(accelerator, range(3, 7), tmp_path)
    accelerator.end_training()
    assert len(Stored(tmp_path / "file").runs) == 2
    assert not caplog.records


def test_a_checkpoint_that_names_no_run_can_be_loaded(tmp_path: Path) -> None:
    interrupted_training(tmp_path, continues=False)
    accelerator = new_training(tmp_path)
    continue_runs(accelerator)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    train(accelerator, range(3, 7), tmp_path)
    accelerator.end_training()
    assert len(Stored(tmp_path / "file").runs) == 2


def test_a_damaged_name_of_the_run_does_not_keep_the_checkpoint_from_being_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted_training(tmp_path)
    (tmp_path / "checkpoint" / "callback_runs.json").write_text('[{"step": 2')
    accelerator = new_training(tmp_path)
    continue_runs(accelerator)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    train(accelerator, range(3, 7), tmp_path)
    accelerator.end_training()
    assert len(Stored(tmp_path / "file").runs) == 2
    assert ["checkpoint" in text for text in told(caplog)] == [True]


def test_a_tracker_that_joins_a_resumed_run_gets_all_of_it(tmp_path: Path) -> None:
    interrupted_training(tmp_path)
    accelerator = new_training(tmp_path, "other", "file")
    continue_runs(accelerator)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    train(accelerator, range(3, 7), tmp_path)
    accelerator.end_training()
    assert steps(tmp_path) == list(range(7))
    assert [step for _, step, _ in Stored(tmp_path / "other").points] == list(range(7))


def test_going_back_to_a_checkpoint_of_the_own_run_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accelerator = new_training(tmp_path)
    continue_runs(accelerator)
    train(accelerator, range(4), tmp_path, save_at=2)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    accelerator.end_training()
    assert not caplog.records


def test_a_checkpoint_of_another_run_after_the_first_log_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interrupted_training(tmp_path)
    accelerator = new_training(tmp_path)
    continue_runs(accelerator)
    train(accelerator, range(1), tmp_path)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    accelerator.end_training()
    assert ["checkpoint" in text for text in told(caplog)] == [True]
