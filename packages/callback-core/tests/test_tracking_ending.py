"""How a run is closed: by what the loop says, by what it does not say, and after its end again."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from tracking_for_tests import (
    Training,
    calls,
    curve,
    eventually,
    expected,
    names_of_calls,
    runs,
    script,
    statuses,
    tracked,
    warned,
)

from callback_core import TrainerState
from callback_core.tracking import session_of
from callback_core.tracking.journal import read
from callback_core.tracking.run_folder import RunFolder


def kinds(folder: Path) -> list[str]:
    [run] = RunFolder.all(folder)
    return [record.kind for record in read(run.journal)]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "finished"),
        (RuntimeError("no"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(1), "interrupted"),
    ],
)
@pytest.mark.parametrize("delivery", ["thread", "inline"])
def test_a_run_is_closed_as_it_ended(
    tmp_path: Path, out: Path, error: Any, status: str, delivery: Any
) -> None:
    Training(tmp_path, [tracked(out, delivery=delivery)]).train(2, error)
    assert statuses(out) == [status]
    assert curve(out) == expected(1, 2)


def test_a_training_that_fails_before_its_first_epoch_is_there(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [tracked(out)])
    training.fire("on_train_begin")
    training.end(RuntimeError("out of memory"))
    assert names_of_calls(out) == ["open", "log_parameters", "close"]
    assert statuses(out) == ["failed"]


def test_a_loop_that_did_not_say_that_it_raised_is_closed_when_the_next_begins(
    tmp_path: Path, out: Path
) -> None:
    tracker = tracked(out)
    Training(tmp_path, [tracker]).train(2, RuntimeError(), saying_so=False)
    Training(tmp_path, [tracker]).train(1)
    assert statuses(out) == ["failed", "finished"]
    assert curve(out) == expected(1, 2, 1)
    assert len(RunFolder.all(tmp_path)) == 2


def test_one_that_was_interrupted_in_a_notebook_is_closed_as_such(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = tracked(out)
    Training(tmp_path, [tracker]).train(2, KeyboardInterrupt(), saying_so=False)
    monkeypatch.setattr(sys, "last_value", KeyboardInterrupt(), raising=False)
    Training(tmp_path, [tracker]).train(1, RuntimeError(), saying_so=False)
    Training(tmp_path, [tracker]).train(1)  # the interrupt was not of the second
    assert statuses(out) == ["interrupted", "failed", "finished"]


@pytest.mark.parametrize(("error", "status"), [(None, "finished"), (RuntimeError(), "failed")])
def test_one_that_was_seen_from_its_middle_on_fails_only_where_an_error_was_raised(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, error: Any, status: str
) -> None:
    tracker = tracked(out)
    Training(tmp_path, [tracker]).step()
    if error is not None:
        monkeypatch.setattr(sys, "last_value", error, raising=False)
    Training(tmp_path, [tracker]).train(1)
    assert statuses(out) == [status, "finished"]


def test_a_dead_training_does_not_keep_its_run_from_one_that_resumes_it(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Training(tmp_path, [tracked(out)]).train(1)
    dead = Training(tmp_path, [tracked(out)])
    dead.begin()
    dead.step()
    dead.fire("on_save")
    dead.step()
    resumed = Training(tmp_path, [tracked(out)], TrainerState(max_steps=9, global_step=1))
    resumed.train(2)
    assert warned(caplog) == []
    assert len(RunFolder.all(tmp_path)) == 2
    assert statuses(out) == ["finished", "failed", "finished"]
    assert curve(out) == expected(1, 1, 2, 3)


def test_a_training_whose_state_is_gone_is_closed_when_another_begins(
    tmp_path: Path, out: Path
) -> None:
    """An error of its tracker in that moment costs the other nothing."""
    other = tmp_path / "other"
    gone = tracked(out, fail="release")
    Training(tmp_path, [gone]).train(2, RuntimeError(), saying_so=False)
    gc.collect()
    Training(tmp_path, [tracked(other)]).train(1)
    assert statuses(out) == ["failed"]
    assert curve(other) == expected(1)


def test_a_training_that_goes_on_is_left_alone_when_another_begins(
    tmp_path: Path, out: Path
) -> None:
    first = Training(tmp_path, [tracked(out)])
    first.begin()
    first.step()
    Training(tmp_path, [tracked(tmp_path / "other")]).train(1)
    assert statuses(out) == []
    first.step()
    first.end()
    assert statuses(out) == ["finished"]
    assert curve(out) == expected(1, 2)


def test_nothing_of_a_training_that_is_over_is_kept_in_memory(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [tracked(out)]).train(1)
    session = weakref.ref(session_of(training.state))
    assert session() is not None
    del training
    Training(tmp_path, [tracked(out)]).train(1)
    gc.collect()
    assert session() is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("raise RuntimeError('no')", "failed"),
        ("raise KeyboardInterrupt", "interrupted"),
        ("sys.exit(3)", "failed"),
        ("pass", "failed"),
    ],
)
@pytest.mark.parametrize("delivery", ["thread", "process"])
def test_at_the_interpreter_s_exit_a_run_is_closed(
    tmp_path: Path, out: Path, error: str, status: str, delivery: str
) -> None:
    done = script(
        "tracker = tracked(Path(sys.argv[2]), delivery=sys.argv[3])\n"
        "training = Training(Path(sys.argv[1]), [tracker])\n"
        "training.train(2, RuntimeError(), saying_so=False)\n" + error,
        tmp_path,
        out,
        delivery,
    )
    assert statuses(out) == [status], done.stderr
    assert curve(out) == expected(1, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_the_training_alone_also_when_it_exits(
    tmp_path: Path, out: Path
) -> None:
    done = script(
        "tracker = tracked(Path(sys.argv[2]), checkpoints=True)\n"
        "training = Training(Path(sys.argv[1]), [tracker])\n"
        "training.begin(); training.step()\n"
        "warnings.simplefilter('ignore')  # Python's own of a process with threads that forks\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    training.fire('on_epoch_begin')\n"
        "    training.fire('on_save', checkpoint_dir=sys.argv[1])\n"
        "    training.fire('on_train_end')\n"
        "    sys.exit(0)  # which calls what is registered for it\n"
        "os.waitpid(child, 0)\n"
        "training.step()\n"
        "training.end()\n",
        tmp_path,
        out,
    )
    assert done.stderr == ""
    assert statuses(out) == ["finished"]
    assert curve(out) == expected(1, 2)
    assert {call["pid"] for call in calls(out)} == {calls(out)[0]["pid"]}
    assert kinds(tmp_path) == ["begin", "logs", "logs", "end"]


@pytest.mark.parametrize(("error", "status"), [(None, "finished"), (RuntimeError("no"), "failed")])
def test_an_evaluation_after_training_opens_its_run_again_and_closes_it_as_it_was(
    tmp_path: Path, out: Path, error: Any, status: str
) -> None:
    training = Training(tmp_path, [tracked(out)]).train(2, error)
    for number, loss in enumerate((0.5, 0.25), 2):
        training.log(eval_loss=loss)
        assert eventually(lambda: len(statuses(out)) == number)  # noqa: B023
    assert statuses(out) == [status] * 3
    [run] = runs(out)
    assert [call["run_id"] for call in calls(out, "open")] == [None, run, run]
    assert len(calls(out, "log_parameters")) == 1
    assert curve(out, "eval/loss") == [(2, 0.5), (2, 0.25)]


def test_an_evaluation_just_before_the_exit_is_delivered(tmp_path: Path, out: Path) -> None:
    done = script(
        "training = Training(Path(sys.argv[1]), [tracked(Path(sys.argv[2]), delay=0.1)]).train(2)\n"
        "training.log(eval_loss=1.0)\n",
        tmp_path,
        out,
    )
    assert done.stderr == ""
    assert statuses(out) == ["finished", "finished"]
    assert curve(out, "eval/loss") == [(2, 1.0)]


@pytest.mark.parametrize(("error", "status"), [(None, "finished"), (RuntimeError(), "failed")])
def test_what_is_called_before_the_end_knows_how_it_ends_and_can_log_and_upload(
    tmp_path: Path, out: Path, error: Any, status: str
) -> None:
    training = Training(tmp_path / "run", [tracked(out, checkpoints=True)])
    training.begin()
    training.step()
    session = session_of(training.state)
    assert session is not None
    endings: list[str | None] = []
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "weights").write_text("best", "utf-8")

    def keep(status: str) -> None:
        endings.append(status)
        training.log(energy=0.25)
        session.keep(session.members["file"], tmp_path / "best", 1, "model")

    session.before_end(keep)
    training.end(error)
    assert endings == [status]
    assert curve(out, "train/energy") == [(1, 0.25)]
    [upload] = calls(out, "log_files")
    assert (upload["name"], upload["files"]) == ("model", {"weights": "best"})
    assert names_of_calls(out)[-1] == "close"


def test_an_error_in_what_is_called_before_the_end_costs_no_more_than_a_warning(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [tracked(out)])
    training.begin()
    training.step()
    session = session_of(training.state)
    assert session is not None

    def fail(status: str) -> None:
        raise ArithmeticError("no meter")

    session.before_end(fail)
    session.before_end(lambda status: training.log(energy=0.25))
    training.end()
    assert len(warned(caplog)) == 1
    assert "no meter" in caplog.text
    assert curve(out, "train/energy") == [(1, 0.25)]
    assert statuses(out) == ["finished"]


def test_a_training_that_has_ended_holds_neither_its_callback_nor_its_state(
    tmp_path: Path, out: Path
) -> None:
    callback = tracked(out)
    training = Training(tmp_path, [callback])
    training.begin()
    training.step()
    training.end()
    kept = weakref.ref(callback), weakref.ref(training.state)
    del callback, training
    gc.collect()
    assert [one() for one in kept] == [None, None]
