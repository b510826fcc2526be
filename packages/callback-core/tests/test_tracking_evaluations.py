"""Evaluations and predictions before, beside and after a training: they are in its run."""

from __future__ import annotations

import gc
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from tracking_for_tests import (
    FileTracker,
    Training,
    calls,
    curve,
    eventually,
    expected,
    runs,
    script,
    statuses,
    tracked,
    warned,
)

from callback_core import TrainerState
from callback_core.tracking import close_open_runs, session_of
from callback_core.tracking.run_folder import RunFolder


class FolderTracker(FileTracker):
    """Leaves another folder behind each time that it opens its run."""

    keeps_open = True


class OneRunTracker(FileTracker):
    """Has one open run in a process, and lets go of it to open another, as Comet does."""

    opens_one_run = True


def evaluated(training: Training, *losses: float) -> None:
    for loss in losses:
        training.log(eval_loss=loss)


def test_an_evaluation_by_itself_is_a_run(tmp_path: Path, out: Path) -> None:
    evaluated(Training(tmp_path, [tracked(out)], TrainerState()), 0.5)
    assert eventually(lambda: statuses(out) == ["finished"])
    assert curve(out, "eval/loss") == [(0, 0.5)]


@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
@pytest.mark.parametrize("kind", [FileTracker, FolderTracker])
def test_a_training_continues_the_run_of_the_evaluations_before_it(
    tmp_path: Path, out: Path, delivery: Any, kind: type[FileTracker]
) -> None:
    training = Training(tmp_path, [tracked(out, kind, delivery=delivery)], TrainerState())
    evaluated(training, 0.5, 0.25)
    training.state = TrainerState(max_steps=9)
    training.train(2)
    assert curve(out, "eval/loss") == [(0, 0.5), (0, 0.25)]
    assert curve(out) == expected(1, 2)
    assert len(runs(out)) == len(RunFolder.all(tmp_path)) == 1
    assert statuses(out)[-1] == "finished"
    if kind is FolderTracker and delivery != "process":
        assert len(calls(out, "open")) == 1


def test_a_consumer_is_not_idle_before_it_has_delivered_the_next_evaluation(
    tmp_path: Path, out: Path
) -> None:
    callback = tracked(out, FolderTracker, delivery="inline")
    evaluated(Training(tmp_path, [callback], TrainerState()), 0.5)
    assert callback.member is not None
    consumer = callback.member.delivery.consumer
    assert consumer.is_idle
    consumer.training_ended("finished")  # as the session does after each log outside of a training
    assert not consumer.is_idle
    consumer.deliver()
    assert consumer.is_idle


def test_all_trackers_of_a_training_continue_the_run_of_an_evaluation(
    tmp_path: Path, out: Path, other: Path
) -> None:
    callbacks = [tracked(out), tracked(other, FolderTracker)]
    training = Training(tmp_path, callbacks, TrainerState())
    evaluated(training, 0.5)
    training.state = TrainerState(max_steps=9)
    training.train(1, RuntimeError("no"))
    for path in (out, other):
        assert curve(path, "eval/loss") == [(0, 0.5)]
        assert curve(path) == expected(1)
        assert len(runs(path)) == 1
        assert statuses(path)[-1] == "failed"
    assert len(RunFolder.all(tmp_path)) == 1


def test_an_evaluation_with_the_state_of_the_training_to_come_is_in_its_run(
    tmp_path: Path, out: Path
) -> None:
    training = Training(tmp_path, [tracked(out)])
    evaluated(training, 0.5)
    training.train(2)
    assert curve(out, "eval/loss") == [(0, 0.5)]
    assert len(runs(out)) == 1
    assert statuses(out) == ["finished"]


def test_a_prediction_before_the_training_is_in_its_run(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [tracked(out)], TrainerState())
    training.fire("on_predict", metrics={"test_loss": 0.5})
    training.state = TrainerState(max_steps=9)
    training.train(1)
    assert curve(out, "test/loss") == [(0, 0.5)]
    assert len(runs(out)) == 1


def test_a_second_training_after_an_evaluation_and_a_first_one_is_a_second_run(
    tmp_path: Path, out: Path
) -> None:
    tracker = tracked(out)
    training = Training(tmp_path, [tracker], TrainerState())
    evaluated(training, 0.5)
    for _ in range(2):
        training.state = TrainerState(max_steps=9)
        training.train(1)
        evaluated(training, 0.25)
    assert eventually(lambda: len(curve(out, "eval/loss")) == 3)
    assert curve(out, "eval/loss") == [(0, 0.5), (1, 0.25), (1, 0.25)]
    assert len(runs(out)) == 2


@pytest.mark.parametrize(
    "state",
    [
        TrainerState(max_steps=9, global_step=3),
        TrainerState(max_steps=9, is_hyper_param_search=True, trial_name="t1"),
    ],
)
def test_a_training_that_resumes_and_a_trial_do_not_continue_an_evaluation(
    tmp_path: Path, out: Path, state: TrainerState
) -> None:
    training = Training(tmp_path, [tracked(out)], TrainerState())
    evaluated(training, 0.5)
    training.state = state
    training.train(1)
    assert len(runs(out)) == 2


def test_a_training_in_another_directory_does_not_continue_an_evaluation(
    tmp_path: Path, out: Path
) -> None:
    tracker = tracked(out)
    evaluated(Training(tmp_path / "a", [tracker], TrainerState()), 0.5)
    Training(tmp_path / "b", [tracker]).train(1)
    assert len(runs(out)) == 2


def test_a_training_whose_evaluation_was_not_delivered_delivers_both(
    tmp_path: Path, out: Path
) -> None:
    up = tmp_path / "up"
    tracker = tracked(out, fail="open", until=str(up), flush_limit=0.05)
    training = Training(tmp_path, [tracker], TrainerState())
    evaluated(training, 0.5)
    training.state = TrainerState(max_steps=9)
    training.begin()
    up.touch()
    tracker.options.flush_limit = 300.0
    training.step()
    training.end()
    assert curve(out, "eval/loss") == [(0, 0.5)]
    assert curve(out) == expected(1)
    assert len(runs(out)) == 1


@pytest.mark.parametrize("delivery", ["thread", "inline"])
def test_evaluations_after_the_training_open_a_run_that_leaves_folders_only_once_more(
    tmp_path: Path, out: Path, delivery: Any
) -> None:
    tracker = tracked(out, FolderTracker, delivery=delivery)
    training = Training(tmp_path, [tracker]).train(2)
    losses = [step / 8 for step in range(12)]
    evaluated(training, *losses)
    assert statuses(out) == ["finished"]
    Training(tmp_path, [tracked(tmp_path / "other.jsonl")]).train(1)
    assert curve(out, "eval/loss") == [(2, loss) for loss in losses]
    assert len(calls(out, "open")) == 2
    assert statuses(out) == ["finished", "finished"]
    assert len(runs(out)) == 1


@pytest.mark.parametrize("by", ["exit", "training"])
def test_a_run_that_stayed_open_for_long_is_closed_in_order(
    tmp_path: Path, out: Path, by: str
) -> None:
    training = Training(tmp_path, [tracked(out, FolderTracker, flush_limit=1.0)]).train(1)
    evaluated(training, 0.5)
    long_ago = monotonic() + 1.0
    assert eventually(lambda: monotonic() > long_ago and len(calls(out, "open")) == 2)
    if by == "exit":
        close_open_runs()
        assert statuses(out) == ["finished"] * 2
    else:
        training.state = TrainerState(max_steps=9)
        training.train(1)
        assert statuses(out) == ["finished"] * 3


def test_evaluations_are_delivered_before_a_training_opens_the_one_run_of_its_sdk(
    tmp_path: Path, out: Path
) -> None:
    tracker = tracked(out, OneRunTracker, delay=0.05)
    evaluated(Training(tmp_path / "a", [tracker]).train(1), 0.5)
    Training(tmp_path / "b", [tracked(out, OneRunTracker)]).train(1)
    assert [call["call"] for call in calls(out, "open", "close")] == ["open", "close"] * 3


def test_a_run_that_stays_open_for_evaluations_is_closed_when_its_training_is_forgotten(
    tmp_path: Path, out: Path
) -> None:
    training = Training(tmp_path, [tracked(out, FolderTracker)]).train(1)
    evaluated(training, 0.5)
    del training
    gc.collect()
    assert eventually(lambda: statuses(out) == ["finished", "finished"])


@pytest.mark.parametrize("kind", ["FileTracker", "KeepsOpen"])
@pytest.mark.parametrize("error", ["None", "RuntimeError()"])
def test_at_the_exit_a_run_with_evaluations_is_closed_as_its_training_ended(
    tmp_path: Path, out: Path, kind: str, error: str
) -> None:
    done = script(
        "class KeepsOpen(FileTracker): keeps_open = True\n"
        f"tracker = tracked(Path(sys.argv[2]), {kind})\n"
        f"training = Training(Path(sys.argv[1]), [tracker]).train(2, {error})\n"
        "for loss in (0.5, 0.25): training.log(eval_loss=loss)\n",
        tmp_path,
        out,
    )
    assert done.stderr == ""
    assert curve(out, "eval/loss") == [(2, 0.5), (2, 0.25)]
    assert {*statuses(out)} == {"finished" if error == "None" else "failed"}


def test_metrics_of_a_prediction_reach_every_tracker_once(
    tmp_path: Path, out: Path, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [tracked(out), tracked(other)])
    training.begin()
    training.step()
    training.fire("on_predict", metrics={"test_loss": 0.5})
    training.end()
    training.fire("on_predict", metrics={"test_loss": 0.25})
    for path in (out, other):
        assert eventually(lambda: len(statuses(path)) == 2)  # noqa: B023
        assert curve(path, "test/loss") == [(1, 0.5), (1, 0.25)]
        assert len(runs(path)) == 1
    assert warned(caplog) == []


def test_nothing_of_an_evaluation_is_kept_in_memory_once_it_is_delivered(
    tmp_path: Path, out: Path
) -> None:
    training = Training(tmp_path, [tracked(out)], TrainerState())
    evaluated(training, 0.5)
    assert session_of(training.state) is not None
    assert eventually(lambda: statuses(out) == ["finished"])


def test_a_training_that_resumes_does_not_wait_for_the_run_of_an_evaluation_that_opens_slowly(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = tracked(out, FolderTracker, delay=0.05)
    training = Training(tmp_path, [before]).train(2)
    training.save()
    evaluated(training, 0.5)
    after = tracked(out, FolderTracker, flush_limit=5.0)
    after.load_state_dict(before.state_dict())
    resumed = Training(tmp_path, [after], TrainerState(max_steps=9, global_step=2))
    resumed.train(2)
    assert not warned(caplog)
    assert curve(out) == expected(1, 2, 3, 4)
    assert statuses(out)[-1] == "finished"


def test_no_training_warns_of_a_run_that_the_same_process_is_about_to_deliver(
    tmp_path: Path, out: Path, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    until = tmp_path / "recovered"
    evaluating = Training(
        tmp_path, [tracked(out, hang="open", until=str(until), flush_limit=60.0)], TrainerState()
    )
    evaluated(evaluating, 0.5)
    Training(tmp_path, [tracked(other)]).train(1)
    until.touch()
    assert eventually(lambda: statuses(out) == ["finished"])
    assert not warned(caplog)


def test_a_tracker_that_joins_later_is_in_the_run_of_an_evaluation_that_was_over(
    tmp_path: Path, out: Path, other: Path
) -> None:
    first = tracked(out, delivery="inline")
    evaluated(Training(tmp_path, [first], TrainerState()), 0.5)
    gc.collect()
    assert eventually(lambda: statuses(out))
    session = first.session
    assert session is not None
    session.close()
    session_of(TrainerState())  # drops the sessions that are over
    Training(tmp_path, [first, tracked(other, delivery="inline")]).train(1)
    assert len(RunFolder.all(tmp_path)) == 1
    assert curve(other, "eval/loss") == [(0, 0.5)]
