"""A training that was killed and is resumed: its run goes on without a seam."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from run_for_tests import Run, tries
from tracking_for_tests import (
    Training,
    calls,
    curve,
    eventually,
    expected,
    points,
    runs,
    statuses,
    stored,
    tracked,
    warned,
)

from callback_core import TrainerState
from callback_core.tracking.run_folder import RunFolder

NAN = {"__float__": "NaN"}


def resumed(step: int) -> TrainerState:
    """Return the state of a training that goes on at `step`."""
    return TrainerState(max_steps=99, global_step=step)


def test_a_resumed_run_is_opened_again_and_sent_only_what_comes_out_otherwise(run: Run) -> None:
    for step, value in enumerate((0.1, 0.2, 0.3, NAN, NAN), 1):
        run.log(step, a=value)
        if step == 2:
            run.save(2)
    run.deliver()
    before = len(calls(run.out))
    run.begin(2)
    for step, value in enumerate((0.3, 7.0, NAN, 0.6), 3):
        run.log(step, a=value)
    run.end()
    run.deliver()
    [first, opened] = calls(run.out, "open")
    assert (opened["run_id"], opened["adopted"]) == (first["run"], False)
    assert (opened["step"], opened["rewind_to"]) == (2, None)
    assert [call["call"] for call in calls(run.out)[before:]] == ["open", "log_metrics", "close"]
    assert curve(run.out, "train/a")[5:] == [(4, 7.0), (6, 0.6)]
    assert statuses(run.out) == ["finished"]


def test_a_tracker_that_rewinds_is_told_the_first_step_that_is_replaced(run: Run) -> None:
    """Where nothing is replaced, it is told none."""
    for step in (1, 2, 3):
        run.log(step, a=step)
        run.save(step)
    run.deliver(rewinds=True)
    run.begin(1)
    run.log(2, a=2)
    run.log(3, a=7)
    run.end()
    run.deliver(rewinds=True)
    run.begin(3)
    run.log(4, a=4)
    run.end()
    run.deliver(rewinds=True)
    assert [call["rewind_to"] for call in calls(run.out, "open")] == [None, 2, None]
    assert curve(run.out, "train/a") == [(1, 1), (2, 2), (3, 3), (2, 2), (3, 7), (4, 4)]


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("logs_at_the_save", [True, False])
def test_what_was_replaced_before_it_was_sent_is_not_sent(
    run: Run, gone: bool, logs_at_the_save: bool
) -> None:
    """No checkpoint of it is sent or kept either."""
    run.log(1, a=1)
    if logs_at_the_save:
        run.log(2, a=2)
    run.save(2, "file")
    run.log(2, late=0.5)
    run.log(3, a=3)
    run.save(3, "file")
    run.log(4, a=4)
    if gone:
        shutil.rmtree(run.folder.path / "files" / "file" / "checkpoint-3")
    run.begin(2)
    run.log(3, a=3)
    run.log(4, a=7)
    run.end()
    consumer = run.deliver(checkpoints=True)
    assert curve(run.out, "train/a") == [(1, 1), *[(2, 2)] * logs_at_the_save, (3, 3), (4, 7)]
    assert curve(run.out, "train/late") == []
    assert [call["name"] for call in calls(run.out, "log_files")] == ["checkpoint-2"]
    assert [*run.folder.path.glob("files/*/*")] == []
    assert consumer.run.progress.left_out == {}


@pytest.mark.parametrize(("rewinds", "saved_at"), [(False, 3), (True, 3), (False, 2)])
def test_what_may_have_been_sent_is_sent_again_with_the_time_of_the_first(
    run: Run, rewinds: bool, saved_at: int
) -> None:
    for step in (1, 2, 3):
        run.log(step, a=step)
        if step == saved_at:
            run.save(step)
    run.deliver(rewinds=rewinds)
    run.forget_since("logs", 3)
    run.begin(saved_at)
    if saved_at == 2:
        run.write("logs", 3, time=30.0, logs={"a": 3}, epoch=0.5)
    run.log(4, a=4)
    run.end()
    run.deliver(rewinds=rewinds)
    twice = [point for point in points(run.out) if point.step == 3]
    assert len(twice) == 2
    assert twice[0][:4] == twice[1][:4]
    assert calls(run.out, "open")[-1]["rewind_to"] == (3 if rewinds else None)
    assert [(step, value) for _, step, value in stored(run.out)] == [(n, n) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("kind", "noted", "step", "parameters"),
    [("logs", 4, 4, 1), ("begin", 0, 1, 1), ("logs", 0, 0, 2)],
)
def test_what_is_forgotten_with_the_rest_is_sent_again(
    run: Run, kind: str, noted: int, step: int, parameters: int
) -> None:
    """So are parameters where all is forgotten, from step 0 on."""
    if step == 0:
        run.log(0, first=0.5)
        run.log(0, early=0.5)
    for at in (1, 2, 3, 4):
        run.log(at, a=at)
    run.log(4, late=0.5)
    run.save(4)
    run.deliver(rewinds=True)
    before = points(run.out)
    run.forget_since(kind, noted)
    run.begin(4)
    run.log(5, a=5)
    run.end()
    run.deliver(rewinds=True)
    assert calls(run.out, "open")[-1]["rewind_to"] == step
    after = points(run.out)[len(before) :]
    assert [point for point in before if point.step >= step] == after[:-1]
    assert len(calls(run.out, "log_parameters")) == parameters


def test_a_checkpoint_that_a_tracker_has_is_not_sent_again_where_points_are_forgotten(
    run: Run,
) -> None:
    run.log(1, a=1)
    run.save(1, "file")
    run.log(1, late=0.5)
    run.deliver(rewinds=True, checkpoints=True)
    run.forget_since("logs", 1)
    run.begin(1)
    run.log(2, a=2)
    run.end()
    consumer = run.deliver(rewinds=True, checkpoints=True)
    assert calls(run.out, "open")[-1]["rewind_to"] == 1
    assert len(calls(run.out, "log_files")) == 1
    assert consumer.run.progress.left_out == {}


def test_what_was_never_sent_is_sent_when_a_later_attempt_logs_it_again(run: Run) -> None:
    """What came in between came out otherwise, and was sent."""
    run.log(1, a=1)
    run.save(1)
    run.deliver()
    run.log(2, a=2)  # killed before this is delivered
    for value in (7, 2):
        run.begin(1)
        run.log(2, a=value)
        run.deliver()
    assert curve(run.out, "train/a") == [(1, 1), (2, 7), (2, 2)]


def test_what_was_passed_over_and_never_sent_is_sent_when_it_comes_again(run: Run) -> None:
    """So it is where an attempt in between could not deliver at all."""
    run.log(1, a=1)
    run.save(1)
    run.deliver()
    run.log(2, a=2)  # killed before this is delivered
    run.begin(1)
    run.deliver()
    run.log(2, a=2)  # killed again
    run.begin(1)
    run.log(2, a=9)
    with pytest.raises(ConnectionError):
        run.deliver(fail="open")
    run.begin(1)
    run.log(2, a=2)
    run.end()
    run.deliver()
    assert curve(run.out, "train/a") == [(1, 1), (2, 2)]


def test_of_what_measures_time_the_first_value_stands(run: Run) -> None:
    run.log(1, a=1)
    run.save(1)
    run.log(1, eval_loss=0.5, eval_runtime=0.25)
    run.deliver()
    run.begin(1)
    run.log(1, eval_loss=0.75, eval_runtime=0.375)
    run.end()
    run.deliver()
    assert curve(run.out, "eval/loss") == [(1, 0.5), (1, 0.75)]
    assert curve(run.out, "eval/runtime") == [(1, 0.25)]


def test_points_after_the_end_open_the_run_again_and_rewind_no_second_time(run: Run) -> None:
    run.log(1, a=1)
    run.deliver(rewinds=True)
    run.log(2, a=2)
    run.end()
    run.log(2, eval_a=3)
    run.end()
    run.deliver(rewinds=True)
    assert [call["rewind_to"] for call in calls(run.out, "open")] == [None, 2, None]
    assert stored(run.out) == [("train/a", 1, 1), ("train/a", 2, 2), ("eval/a", 2, 3)]


FAILURES: list[dict[str, Any]] = [
    {"fail": "log_metrics"},
    {"fail": "open"},
    {"fail": "close", "rewinds": True},
    {"fail": "log_metrics", "point": "train/b", "limits": {"batch_size": 1}, "rewinds": True},
]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("back_before_the_end", [False, True])
def test_what_another_still_delivers_of_a_run_that_is_resumed_is_sent_once(
    run: Run, failure: dict[str, Any], back_before_the_end: bool
) -> None:
    """A process delivers what a dead training has left when the service is back.

    That is after the run was resumed: before that training ends, or behind it.
    """
    run.log(1, a=1, b=1)
    run.log(2, a=2, b=2)
    other = run.consumer(**failure)
    other.training_ended("failed")
    assert len(tries(other, most=3)) == 3
    run.begin(1)
    run.log(2, a=7, b=7)
    mine = run.consumer(**failure)
    with pytest.raises(BlockingIOError):
        mine.deliver()
    if back_before_the_end:
        run.up.touch()
        tries(other)
    run.log(3, a=3, b=3)
    run.end()
    run.up.touch()
    tries(other)
    tries(mine)
    assert other.done
    assert mine.done
    kept = stored(run.out, tells_duplicates=False)
    has = [(step, value) for name, step, value in kept if name == "train/a"]
    assert has == [(1, 1), (2, 7), (3, 3)]
    assert statuses(run.out)[-1] == "finished"
    assert statuses(run.out).count("finished") == 1
    assert len(runs(run.out)) == 1


def test_a_training_that_is_resumed_meanwhile_replaces_what_was_read(run: Run) -> None:
    run.log(1, a=1)
    run.save(1)
    run.log(2, a=2)
    consumer = run.consumer()
    consumer.deliver()
    run.begin(1)
    run.log(2, a=2)
    run.log(3, a=3)
    run.end()
    consumer.deliver()
    assert curve(run.out, "train/a") == [(n, n) for n in (1, 2, 3)]
    assert statuses(run.out) == ["failed", "finished"]


def test_the_checkpoint_knows_the_run_and_the_resumed_training_goes_on_in_it(
    tmp_path: Path, out: Path
) -> None:
    tracker = tracked(out)
    training = Training(tmp_path, [tracker])
    training.begin()
    training.step()
    assert eventually(lambda: tracker.state_dict()["run_id"])
    state = tracker.state_dict()
    training.save()
    training.step()
    training.end()
    Training(tmp_path, [tracked(tmp_path / "unrelated")]).train(1)  # a newer one
    again = tracked(out)
    again.load_state_dict(state)
    Training(tmp_path, [again], resumed(1)).train(2)
    assert len(runs(out)) == 1
    assert curve(out) == expected(1, 2, 3)
    assert again.state_dict() == state


def test_without_a_state_a_resumed_training_goes_on_in_the_newest_run(run: Run) -> None:
    """It is known from the moment at which it was opened."""
    with pytest.raises(ConnectionError):
        run.deliver(fail="log_parameters")
    opened = runs(run.out)
    run.log(1, loss=0.5)
    run.up.touch()
    Training(run.folder.output_dir, [tracked(run.out)], resumed(1)).train(1)
    assert runs(run.out) == opened
    assert curve(run.out) == expected(1, 2)


def test_the_run_that_the_user_opened_comes_before_the_one_that_is_resumed(run: Run) -> None:
    run.log(1, loss=0.5)
    run.deliver()
    Training(run.folder.output_dir, [tracked(run.out, adopts="the user's")], resumed(1)).train(1)
    assert calls(run.out, "open")[-1]["run"] == "the user's"


def test_a_training_that_begins_from_nothing_is_a_run_of_its_own_whatever_was_loaded(
    run: Run,
) -> None:
    run.log(1, loss=0.5)
    run.deliver()
    tracker = tracked(run.out)
    tracker.load_state_dict({"run": "run", "run_id": run.folder.read_progress("file")["run_id"]})
    Training(run.folder.output_dir, [tracker]).train(1)
    assert calls(run.out, "open")[-1]["run_id"] is None
    assert len(RunFolder.all(run.folder.output_dir)) == 2


def test_a_training_that_resumes_at_step_0_continues_its_run(run: Run) -> None:
    run.log(0, loss=0.5)
    run.deliver()
    tracker = tracked(run.out)
    run_id = run.folder.read_progress("file")["run_id"]
    tracker.load_state_dict({"run": "run", "run_id": run_id})
    training = Training(run.folder.output_dir, [tracker])
    training.fire("on_train_begin", checkpoint_dir="checkpoint")
    training.fire("on_epoch_begin")
    training.step(loss=0.25)
    training.end()
    assert calls(run.out, "open")[-1]["run_id"] == run_id
    assert len(RunFolder.all(run.folder.output_dir)) == 1


def test_a_training_of_a_run_that_is_written_already_is_kept_apart_which_is_warned_of(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run.log(1, loss=0.5)
    run.deliver()
    with run.recorded():
        Training(run.folder.output_dir, [tracked(run.out)], resumed(1)).train(1)
    _, other = sorted(RunFolder.all(run.folder.output_dir), key=lambda f: f.run == "run")[::-1]
    [line] = warned(caplog)
    assert str(run.folder.path) in line
    assert str(other.path) in line
    assert curve(run.out) == expected(1, 2)


@pytest.mark.parametrize("rewinds", [False, True])
def test_what_a_dead_attempt_logged_and_the_resumed_one_did_not_repeat(
    tmp_path: Path, out: Path, rewinds: bool
) -> None:
    first = Training(tmp_path, [tracked(out, rewinds=rewinds)])
    first.begin()
    first.step()
    first.save()
    first.step()
    first.log(only_then=1.0)
    first.end(RuntimeError())
    second = Training(tmp_path, [tracked(out, rewinds=rewinds)], resumed(1), loss=lambda step: step)
    second.train(2)
    has = [(name, step, value) for name, step, value in stored(out) if name != "train/epoch"]
    new = [("train/loss", 1, 0.5), ("train/loss", 2, 2), ("train/loss", 3, 3)]
    old = [("train/loss", 2, 1 / 3), ("train/only_then", 2, 1.0)]
    assert has == (new if rewinds else [new[0], *old, *new[1:]])


def test_a_number_that_a_resumed_training_has_where_there_was_nan_is_sent(
    tmp_path: Path, out: Path
) -> None:
    first = Training(tmp_path, [tracked(out)], loss=lambda step: math.nan if step == 2 else 0.5)
    first.begin()
    first.step()
    first.save()
    first.step()
    first.end(RuntimeError())
    Training(tmp_path, [tracked(out)], resumed(1), loss=lambda step: step).train(1)
    assert curve(out)[-1] == (2, 2)


def test_the_epoch_of_a_step_that_had_no_log_before_the_checkpoint_is_there(
    tmp_path: Path, out: Path
) -> None:
    Training(tmp_path, [tracked(out)]).begin()
    again = Training(tmp_path, [tracked(out)], resumed(1))
    again.begin()
    again.log(loss=0.5, epoch=0.5)
    again.end()
    assert curve(out, "train/epoch") == [(1, 0.5)]
