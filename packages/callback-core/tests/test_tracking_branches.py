"""Which run a training continues that resumes from a checkpoint, and when it is one of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tracking_for_tests import (
    FileTracker,
    Training,
    curve,
    eventually,
    expected,
    runs,
    statuses,
    tracked,
    warned,
)

from callback_core import TrainerState
from callback_core.tracking import TrackerCallback
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.run_folder import RunFolder
from callback_core.tracking.tracker_run import TrackerRun


def resumed(step: int) -> TrainerState:
    """Return the state of a training that resumes at `step`."""
    return TrainerState(max_steps=99, global_step=step)


def saved(output_dir: Path, out: Path, steps: int = 3, save_at: int = 2) -> dict[str, Any]:
    """Train, and return the state of the tracker in the checkpoint at `save_at`."""
    tracker = tracked(out)
    training = Training(output_dir, [tracker])
    training.begin()
    state: dict[str, Any] = {}
    for step in range(1, steps + 1):
        training.step()
        if step == save_at:
            assert eventually(lambda: tracker.run_id)
            state = tracker.state_dict()
            training.save()
    training.end()
    return state


def loaded(out: Path, state: dict[str, Any], **options: Any) -> TrackerCallback:
    callback = tracked(out, **options)
    callback.load_state_dict(state)
    return callback


@pytest.mark.parametrize("delivery", ["thread", "process"])
def test_a_training_that_branches_off_into_another_directory_is_a_run_of_its_own(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, delivery: str
) -> None:
    state = saved(tmp_path / "a", out)
    Training(tmp_path / "b", [loaded(out, state, delivery=delivery)], resumed(2)).train(2)
    assert len(runs(out)) == 2
    assert curve(out) == expected(1, 2, 3, 3, 4)
    assert statuses(out) == ["finished"] * 2
    [line] = warned(caplog)
    assert str(tmp_path / "a") in line


def test_all_trackers_of_a_training_that_branches_off_have_runs_of_their_own(
    tmp_path: Path, out: Path, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states = [saved(tmp_path / "a", path) for path in (out, other)]
    trackers = [loaded(path, state) for path, state in zip((out, other), states, strict=True)]
    Training(tmp_path / "b", trackers, resumed(2)).train(1)
    assert len(runs(out)) == len(runs(other)) == 2
    assert len(RunFolder.all(tmp_path / "b")) == len(warned(caplog)) == 1


def test_a_branch_into_a_directory_with_another_run_leaves_that_one_alone(
    tmp_path: Path, out: Path
) -> None:
    Training(tmp_path / "b", [tracked(tmp_path / "unrelated")]).train(5)
    [unrelated] = RunFolder.all(tmp_path / "b")
    size = unrelated.journal.stat().st_size
    Training(tmp_path / "b", [loaded(out, saved(tmp_path / "a", out))], resumed(2)).train(1)
    assert unrelated.journal.stat().st_size == size
    assert len(RunFolder.all(tmp_path / "b")) == 2


def test_a_training_whose_directory_was_moved_continues_its_run(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = saved(tmp_path / "a", out)
    (tmp_path / "a").rename(tmp_path / "b")
    Training(tmp_path / "b", [loaded(out, state)], resumed(2)).train(2)
    assert len(runs(out)) == 1
    assert curve(out) == expected(1, 2, 3, 4)
    assert warned(caplog) == []


def test_a_training_of_which_only_the_checkpoint_is_left_continues_its_run(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = saved(tmp_path / "a", out, steps=2)
    shutil.rmtree(tmp_path / "a")
    Training(tmp_path / "b", [loaded(out, state)], resumed(2)).train(1)
    assert len(runs(out)) == 1
    assert curve(out) == expected(1, 2, 3)
    assert warned(caplog) == []


def test_what_only_a_checkpoint_continues_is_replayed_into_the_tracker_s_run(
    tmp_path: Path, out: Path
) -> None:
    state = saved(tmp_path / "a", out, steps=2)
    shutil.rmtree(tmp_path / "a")
    away = loaded(out, state, fail="open", flush_limit=0, delivery="inline")
    Training(tmp_path / "b", [away], resumed(2)).train(1)
    [folder] = RunFolder.all(tmp_path / "b")
    Consumer(TrackerRun(FileTracker(str(out)), folder, "file")).deliver()
    assert len(runs(out)) == 1
    assert curve(out) == expected(1, 2, 3)


def test_a_relative_directory_is_known_from_another_working_directory(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = saved(Path("a"), out)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Training(Path("../a"), [loaded(out, state)], resumed(2)).train(1)
    assert len(runs(out)) == 1
    Training(Path("b"), [loaded(out, state)], resumed(2)).train(1)
    assert len(runs(out)) == 2


def test_without_a_state_a_training_continues_the_newest_run_with_a_checkpoint_at_its_step(
    tmp_path: Path, out: Path
) -> None:
    saved(tmp_path, out)
    [folder] = RunFolder.all(tmp_path)
    Training(tmp_path, [tracked(tmp_path / "shorter")]).train(1)
    saved(tmp_path, tmp_path / "other", save_at=1)
    Training(tmp_path, [tracked(out)], resumed(2)).train(2)
    assert len(RunFolder.all(tmp_path)) == 3
    assert len(runs(out)) == 1
    assert folder.read_progress("file")["run_id"] in runs(out)


def test_without_a_state_a_training_that_no_run_here_saved_is_a_run_of_its_own(
    tmp_path: Path, out: Path
) -> None:
    saved(tmp_path, out, steps=5)
    Training(tmp_path, [tracked(out)], resumed(4)).train(1)
    assert len(runs(out)) == len(RunFolder.all(tmp_path)) == 2


def test_an_older_checkpoint_in_the_same_directory_continues_its_run(
    tmp_path: Path, out: Path
) -> None:
    state = saved(tmp_path, out, steps=6)
    Training(tmp_path, [loaded(out, state)], resumed(2)).train(1)
    assert len(runs(out)) == 1
