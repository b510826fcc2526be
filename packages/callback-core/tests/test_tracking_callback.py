"""`TrackerCallback` in a training by hand: what is recorded, for whom, and how a run is closed."""

from __future__ import annotations

import gc
import logging
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tracking_for_tests import (
    PATIENCE,
    FileTracker,
    Keeping,
    Rewinding,
    Training,
    WithoutKey,
    WithoutSDK,
    calls,
    eventually,
    hangs,
    names_of_calls,
    points,
    replay,
    script,
    statuses,
    stored,
)

from callback_core import TrainerCallback, TrainerState
from callback_core.tracking import Recording, TrackerCallback
from callback_core.tracking.folder import RunFolder
from callback_core.tracking.journal import read


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "tracker.jsonl"


def callback(out: Path, kind: type[FileTracker] = FileTracker, **options: Any) -> TrackerCallback:
    tracker_options = {k: options.pop(k) for k in ("hang", "fail", "delay") if k in options}
    return TrackerCallback(
        kind(str(out), **tracker_options), **{"flush_limit": PATIENCE, **options}
    )


def losses(out: Path) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in points(out) if p.name == "train/loss"]


def expected(*steps: int) -> list[tuple[int, float]]:
    return [(step, 1 / (step + 1)) for step in steps]


def kinds(folder: Path) -> list[str]:
    [run] = RunFolder.all(folder)
    return [record.kind for record in read(run.journal)]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("callback_core.tracking")
    ]


class Model:
    class config:
        @staticmethod
        def to_dict() -> dict[str, Any]:
            return {"layers": 2, "hub_token": "secret of the model", "pad_token": "<pad>"}


@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
def test_a_tracker_gets_all_of_a_training_and_nothing_is_said(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, delivery: Any
) -> None:
    training = Training(tmp_path, [callback(out, delivery=delivery)])
    training.handler.model = Model()
    training.train(3)
    assert losses(out) == expected(1, 2, 3)
    assert statuses(out) == ["finished"]
    [parameters] = [c["parameters"] for c in calls(out) if c["call"] == "log_parameters"]
    assert parameters["layers"] == 2
    assert parameters["pad_token"] == "<pad>"
    assert parameters["run_name"] == "by hand"
    assert parameters["hub_token"] == "[redacted]"
    assert said(caplog) == []
    assert kinds(tmp_path) == ["begin", "logs", "logs", "logs", "end"]


@pytest.mark.parametrize(
    ("tracker", "why"),
    [(WithoutSDK, "pip install lines-sdk"), (WithoutKey, "LinesCallback needs LINES_KEY")],
)
@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
def test_the_end_of_training_does_not_wait_for_what_is_not_installed_or_not_configured(
    tmp_path: Path,
    out: Path,
    caplog: pytest.LogCaptureFixture,
    delivery: Any,
    tracker: type[FileTracker],
    why: str,
) -> None:
    waiting = callback(out, tracker, delivery=delivery, flush_limit=1e6)  # which would hang
    Training(tmp_path, [waiting]).train(3)
    assert "has not got 3 points" in said(caplog)[-1]
    logs = "".join(log.read_text() for log in tmp_path.glob("tracking/*/*.log"))
    assert why in (logs if delivery == "process" else said(caplog)[-1])
    out.with_name("mended").touch()
    assert replay(tmp_path).returncode == 0
    assert losses(out) == expected(1, 2, 3)


class SwitchedOff(FileTracker):
    """Is switched off while a file is there."""

    @property
    def disabled(self) -> bool:
        return Path(self.path).with_name("off").exists()


def test_nothing_is_recorded_for_a_tracker_that_is_switched_off(tmp_path: Path, out: Path) -> None:
    out.with_name("off").touch()
    off = callback(out, SwitchedOff)
    training = Training(tmp_path / "training", [off])
    training.log(eval_loss=1.0)  # an evaluation before the training, and one after it
    training.begin()
    training.step()
    (tmp_path / "training").mkdir()
    training.save()
    training.fire("on_train_end")
    training.log(eval_loss=1.0)
    assert off.state_dict() == {"run": None, "run_id": None}
    assert calls(out) == []
    assert [path.name for path in (tmp_path / "training").iterdir()] == ["checkpoint-1"]


def test_others_are_recorded_for_beside_one_that_is_switched_off(tmp_path: Path, out: Path) -> None:
    out.with_name("off").touch()
    other = out.with_name("other.jsonl")
    Training(tmp_path, [callback(out, SwitchedOff), callback(other)]).train(2)
    assert calls(out) == []
    assert losses(other) == expected(1, 2)
    [run] = RunFolder.all(tmp_path)
    [begin] = [record for record in read(run.journal) if record.kind == "begin"]
    assert "SwitchedOff" not in repr(begin)


def test_a_tracker_that_is_switched_on_between_trainings_gets_the_second(
    tmp_path: Path, out: Path
) -> None:
    off = callback(out, SwitchedOff)
    out.with_name("off").touch()
    Training(tmp_path / "first", [off]).train(1)
    out.with_name("off").unlink()
    Training(tmp_path / "second", [off]).train(2)
    assert losses(out) == expected(1, 2)
    assert statuses(out) == ["finished"]


def test_no_secret_leaves_the_process(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [callback(out, redact=["learning_rate"])])
    training.handler.model = Model()
    training.begin()
    named = {"https://me:hidden@host": 1.0}
    training.log(note="https://me:hidden@host", api_key="hidden", loss=1, **named)
    training.fire("on_train_end")
    everything = "".join(file.read_text("utf-8") for file in tmp_path.rglob("*") if file.is_file())
    for secret in ("hidden", "not for trackers", "secret of the model"):
        assert secret not in everything
    [parameters] = [c["parameters"] for c in calls(out) if c["call"] == "log_parameters"]
    assert parameters["learning_rate"] == "[redacted]"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delivery": "post"}, "delivery is 'post', it must be one of: thread, inline, process"),
        ({"open_limit": -1}, "open_limit is -1, it must be seconds, 0 or more"),
        ({"flush_limit": float("nan")}, "flush_limit is nan"),
        ({"redact": "name"}, "redact is 'name', it must be a list of names"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(out: Path, options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        callback(out, **options)


def test_a_tracker_that_no_other_process_can_make_is_refused_at_once(out: Path) -> None:
    class Bound(FileTracker):
        def settings(self) -> Any:
            return None

    class Local(FileTracker):
        pass

    with pytest.raises(ValueError, match="bound to this process"):
        callback(out, Bound, delivery="process")
    with pytest.raises(ValueError, match="cannot be imported by another process"):
        callback(out, Local, delivery="process")


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
    Training(tmp_path, [callback(out, delivery=delivery)]).train(2, error)
    assert statuses(out) == [status]
    assert losses(out) == expected(1, 2)


def test_a_loop_that_did_not_say_that_it_raised_is_closed_when_the_next_begins(
    tmp_path: Path, out: Path
) -> None:
    tracker = callback(out)
    Training(tmp_path, [tracker]).train(2, RuntimeError(), saying_so=False)
    Training(tmp_path, [tracker]).train(1)
    assert statuses(out) == ["failed", "finished"]
    assert losses(out) == expected(1, 2, 1)
    assert len(RunFolder.all(tmp_path)) == 2


def test_one_that_was_interrupted_in_a_notebook_is_closed_as_such(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = callback(out)
    Training(tmp_path, [tracker]).train(2, KeyboardInterrupt(), saying_so=False)
    monkeypatch.setattr(sys, "last_value", KeyboardInterrupt(), raising=False)
    Training(tmp_path, [tracker]).train(1, RuntimeError(), saying_so=False)
    Training(tmp_path, [tracker]).train(1)  # the interrupt was not of the second
    assert statuses(out) == ["interrupted", "failed", "finished"]


def test_a_dead_training_does_not_keep_its_run_from_one_that_resumes_it(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Training(tmp_path, [callback(out)]).train(1)
    dead = Training(tmp_path, [callback(out)])
    dead.begin()
    dead.step()
    dead.fire("on_save")
    dead.step()
    resumed = Training(tmp_path, [callback(out)], TrainerState(max_steps=9, global_step=1))
    resumed.train(2)
    assert said(caplog) == []
    assert len(RunFolder.all(tmp_path)) == 2
    assert statuses(out) == ["finished", "failed", "finished"]
    assert losses(out) == expected(1, 1, 2, 3)


def test_a_training_whose_state_is_gone_is_closed_when_another_begins(
    tmp_path: Path, out: Path
) -> None:
    Training(tmp_path, [callback(out)]).train(2, RuntimeError(), saying_so=False)
    gc.collect()
    Training(tmp_path, [callback(tmp_path / "other")]).train(1)
    assert statuses(out) == ["failed"]


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
        "tracker = TrackerCallback(FileTracker(sys.argv[2]), delivery=sys.argv[3])\n"
        "training = Training(Path(sys.argv[1]), [tracker])\n"
        "training.train(2, RuntimeError(), saying_so=False)\n" + error,
        tmp_path,
        out,
        delivery,
    )
    assert statuses(out) == [status], done.stderr
    assert losses(out) == expected(1, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_leaves_the_training_alone_also_when_it_exits(
    tmp_path: Path, out: Path
) -> None:
    done = script(
        "tracker = TrackerCallback(FileTracker(sys.argv[2]))\n"
        "training = Training(Path(sys.argv[1]), [tracker])\n"
        "training.begin(); training.step()\n"
        "warnings.simplefilter('ignore')  # Python's own of a process with threads that forks\n"
        "child = os.fork()\n"
        "if child == 0: sys.exit(0)  # which calls what is registered for it\n"
        "os.waitpid(child, 0)\n"
        "training.step()\n"
        "training.fire('on_train_end')\n",
        tmp_path,
        out,
    )
    assert done.stderr == ""
    assert statuses(out) == ["finished"]
    assert losses(out) == expected(1, 2)
    assert kinds(tmp_path) == ["begin", "logs", "logs", "end"]


def test_two_trackers_share_a_journal_in_which_each_event_stands_once(
    tmp_path: Path, out: Path
) -> None:
    other = tmp_path / "other.jsonl"
    training = Training(tmp_path, [callback(out), callback(other)])
    training.begin()
    training.step()
    training.log(eval_loss=1.0)
    training.log(eval_loss=1.0)  # the same again is another event
    training.save()
    training.step()
    training.fire("on_train_end")
    assert kinds(tmp_path) == ["begin", "logs", "logs", "logs", "saved", "logs", "end"]
    assert points(out) == points(other)
    assert RunFolder.all(tmp_path)[0].trackers() == ["file", "file-2"]


@pytest.mark.parametrize("first", [True, False])
def test_a_tracker_that_is_removed_in_the_middle_does_not_matter_to_the_other(
    tmp_path: Path, out: Path, first: bool
) -> None:
    leaves, stays = callback(tmp_path / "other.jsonl"), callback(out)
    training = Training(tmp_path, [leaves, stays] if first else [stays, leaves])
    training.begin()
    training.step()
    training.handler.pop_callback(leaves)
    training.step()
    training.step()
    training.handler.callbacks.insert(0, leaves)
    training.step()
    training.fire("on_train_end")
    assert losses(out) == expected(1, 2, 3, 4)
    assert kinds(tmp_path).count("logs") == 4


def test_a_tracker_that_is_added_late_gets_what_was_before(tmp_path: Path, out: Path) -> None:
    other = tmp_path / "other.jsonl"
    training = Training(tmp_path, [callback(out)])
    training.begin()
    training.step()
    training.handler.add_callback(callback(other))
    training.step()
    training.fire("on_train_end")
    assert losses(out) == losses(other) == expected(1, 2)
    assert statuses(other) == ["finished"]


def test_one_that_replaces_another_misses_no_log(tmp_path: Path, out: Path) -> None:
    first, second = callback(tmp_path / "other.jsonl"), callback(out)
    training = Training(tmp_path, [first])
    training.begin()
    training.step()
    training.handler.pop_callback(first)
    training.handler.add_callback(second)
    training.step()
    training.fire("on_train_end")
    assert losses(out) == expected(1, 2)


def test_the_first_tracker_may_come_in_the_middle(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Training(tmp_path, [callback(tmp_path / "before")]).train(1)
    training = Training(tmp_path, [])
    training.begin()
    training.step()
    training.handler.add_callback(callback(out))
    training.step()
    training.step()
    assert [r.kind for r in read(RunFolder.all(tmp_path)[-1].journal)] == ["begin", "logs", "logs"]
    training.fire("on_train_end")
    assert losses(out) == expected(2, 3)
    assert statuses(out) == ["finished"]
    assert len(RunFolder.all(tmp_path)) == 2
    assert said(caplog) == []


def test_an_evaluation_after_training_opens_its_run_again(tmp_path: Path, out: Path) -> None:
    tracker = callback(out)
    training = Training(tmp_path, [tracker]).train(2)
    training.log(eval_loss=0.5)
    assert eventually(lambda: statuses(out) == ["finished", "finished"])
    training.log(eval_loss=0.25)
    assert eventually(lambda: statuses(out) == ["finished"] * 3)
    runs = {call["run"] for call in calls(out) if call["call"] == "open"}
    assert len(runs) == 1
    assert [p.value for p in points(out) if p.name == "eval/loss"] == [0.5, 0.25]


def test_an_evaluation_by_itself_is_a_run(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [callback(out)], TrainerState())
    training.log(eval_loss=0.5)
    assert eventually(lambda: statuses(out) == ["finished"])
    assert [p[:3] for p in points(out)] == [("eval/loss", 0.5, 0)]
    training.state = TrainerState(max_steps=9)
    training.train(1)
    assert statuses(out) == ["finished", "finished"]
    assert losses(out) == expected(1)


def test_an_evaluation_just_before_the_exit_is_delivered(tmp_path: Path, out: Path) -> None:
    done = script(
        "tracker = TrackerCallback(FileTracker(sys.argv[2], delay=0.1))\n"
        "training = Training(Path(sys.argv[1]), [tracker]).train(2)\n"
        "training.log(eval_loss=1.0)\n",
        tmp_path,
        out,
    )
    assert done.stderr == ""
    assert statuses(out) == ["finished", "finished"]


def test_other_processes_than_the_main_one_write_nothing(tmp_path: Path, out: Path) -> None:
    state = TrainerState(max_steps=3, is_world_process_zero=False)
    training = Training(tmp_path, [callback(out)], state).train(2)
    training.log(eval_loss=1)
    assert list(tmp_path.iterdir()) == []


def test_a_second_training_is_a_second_run(tmp_path: Path, out: Path) -> None:
    tracker = callback(out)
    for _ in range(2):
        Training(tmp_path, [tracker]).train(2)
    assert losses(out) == expected(1, 2, 1, 2)
    assert len({c["run"] for c in calls(out) if c["call"] == "open"}) == 2


def test_the_checkpoint_knows_the_run_and_the_resumed_training_goes_on_in_it(
    tmp_path: Path, out: Path
) -> None:
    tracker = callback(out)
    training = Training(tmp_path, [tracker])
    training.begin()
    training.step()
    assert eventually(lambda: tracker.state_dict()["run_id"])
    state = tracker.state_dict()
    training.save()
    training.step()
    training.fire("on_train_end")
    Training(tmp_path, [callback(tmp_path / "unrelated")]).train(1)
    again = callback(out)
    again.load_state_dict(state)
    Training(tmp_path, [again], TrainerState(max_steps=9, global_step=1)).train(2)
    assert len({c["run"] for c in calls(out) if c["call"] == "open"}) == 1
    assert losses(out) == expected(1, 2, 3)
    assert again.state_dict() == state


def test_a_resumed_training_in_another_directory_goes_on_in_the_tracker_s_run(
    tmp_path: Path, out: Path
) -> None:
    first = callback(out)
    Training(tmp_path / "a", [first]).train(2)
    again = callback(out)
    again.load_state_dict(first.state_dict())
    Training(tmp_path / "b", [again], TrainerState(max_steps=9, global_step=2)).train(1)
    assert len({c["run"] for c in calls(out) if c["call"] == "open"}) == 1
    assert losses(out) == expected(1, 2, 3)


@pytest.mark.parametrize("kind", [FileTracker, Rewinding])
def test_what_a_dead_attempt_logged_and_the_resumed_one_did_not_repeat(
    tmp_path: Path, out: Path, kind: type[FileTracker]
) -> None:
    first = Training(tmp_path, [callback(out, kind)])
    first.begin()
    first.step()
    first.save()
    first.step()
    first.log(only_then=1.0)
    first.fire("on_exception", exception=RuntimeError())
    first.fire("on_train_end")
    state = TrainerState(max_steps=9, global_step=1)
    Training(tmp_path, [callback(out, kind)], state, loss=lambda step: step).train(2)
    has = [(name, step, value) for name, step, value in stored(out) if name != "train/epoch"]
    new = [("train/loss", 1, 0.5), ("train/loss", 2, 2), ("train/loss", 3, 3)]
    old = [("train/loss", 2, 1 / 3), ("train/only_then", 2, 1.0)]
    if kind is Rewinding:
        assert has == new
    else:
        assert has == [new[0], *old, *new[1:]]


def test_a_number_that_a_resumed_training_has_where_there_was_nan_is_sent(
    tmp_path: Path, out: Path
) -> None:
    first = Training(tmp_path, [callback(out)], loss=lambda step: math.nan if step == 2 else 0.5)
    first.begin()
    first.step()
    first.save()
    first.step()
    first.fire("on_exception", exception=RuntimeError())
    first.fire("on_train_end")
    state = TrainerState(max_steps=9, global_step=1)
    Training(tmp_path, [callback(out)], state, loss=lambda step: step).train(1)
    assert losses(out)[-1] == (2, 2)


def test_a_checkpoint_is_kept_whatever_becomes_of_its_directory(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path / "run", [callback(out, Keeping, delay=0.1)])
    training.begin()
    training.step()
    path = training.save()
    shutil.rmtree(path)
    training.fire("on_train_end")
    [upload] = [c for c in calls(out) if c["call"] == "log_files"]
    assert (upload["name"], upload["files"]) == ("checkpoint-1", {"weights": "of step 1"})
    assert list(tmp_path.rglob("weights")) == []


def test_what_is_called_before_the_end_knows_how_it_ends_and_can_have_a_directory_kept(
    tmp_path: Path, out: Path
) -> None:
    for error in (None, ArithmeticError()):
        training = Training(tmp_path / "run", [callback(out, Keeping)])
        training.begin()
        training.step()
        path = tmp_path / "weights of all"
        path.mkdir(exist_ok=True)
        (path / "weights").write_text("best", "utf-8")
        recording = Recording.of(training.state)
        assert recording is not None
        assert recording.ending is None
        endings: list[str | None] = []

        def keep(recording: Recording = recording, endings: list[str | None] = endings) -> None:
            endings.append(recording.ending)
            recording.upload(tmp_path / "weights of all", 1, "file", "model")

        recording.before_end(keep)
        if error is not None:
            training.fire("on_exception", exception=error)
        training.fire("on_train_end")
        assert endings == ["finished" if error is None else "failed"]
    uploads = [c for c in calls(out) if c["call"] == "log_files"]
    assert [(u["name"], u["files"]) for u in uploads] == [("model", {"weights": "best"})] * 2


def test_a_checkpoint_that_cannot_be_kept_costs_no_more_than_itself(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [callback(out, Keeping)])
    training.begin()
    for _ in range(5):
        training.step()
        training.fire("on_save", checkpoint_dir=str(tmp_path / "gone"))
    training.fire("on_train_end")
    assert losses(out) == expected(1, 2, 3, 4, 5)
    assert statuses(out) == ["finished"]
    assert len(said(caplog)) == 1
    assert "gone" in caplog.text
    assert "Traceback" in caplog.text


def test_what_fails_in_the_callback_itself_does_not_lose_the_run(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(dict):
        def items(self) -> Any:
            raise RuntimeError("cannot be read")

    class Bad(FileTracker):
        def adopt(self) -> str | None:
            raise RuntimeError("no idea")

    tracker = callback(out, Bad)
    training = Training(tmp_path, [tracker])
    training.begin()
    for _ in range(5):
        tracker.on_log(training.args, training.state, training.control, logs=Odd(loss=1))
    training.step()
    training.fire("on_train_end")
    assert losses(out) == expected(1)
    assert [text.split(".")[0] for text in said(caplog)] == [
        "file opens a run of its own",
        "Tracking for file failed in on_log",
    ]


def test_parameters_that_cannot_be_told_do_not_lose_the_run(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd:
        class config:
            @staticmethod
            def to_dict() -> Any:
                looped: dict[str, Any] = {(1, 2): 3}  # type: ignore[dict-item]
                looped["self"] = looped
                return looped

    training = Training(tmp_path, [callback(out)])
    training.handler.model = Odd()
    training.train(1)
    assert losses(out) == expected(1)
    assert len(said(caplog)) == 1


def test_odd_logs_are_written_as_far_as_they_are_values(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [callback(out)])
    training.begin()
    training.fire(
        "on_log", logs={1: 2, ("a",): 3.0, "list": [1], "nan": float("nan"), "none": None}
    )
    training.fire("on_log", logs=None)
    training.fire("on_log", logs={})
    training.fire("on_train_end")
    assert [p.name for p in points(out)] == ["train/1", "train/('a',)", "train/nan"]
    [line] = said(caplog)
    assert "did not take all (list: it is a list, not a number; none: it is a NoneType" in line


def test_the_working_directory_may_change(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    training = Training(Path("run"), [callback(out)])
    training.begin()
    training.step()
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    training.step()
    training.fire("on_train_end")
    assert losses(out) == expected(1, 2)
    assert len(RunFolder.all(tmp_path / "run")) == 1


def test_without_an_output_dir_that_can_be_written_it_is_kept_elsewhere_and_said(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "taken").write_text("no directory", "utf-8")
    Training(tmp_path / "taken", [callback(out)]).train(2)
    assert losses(out) == expected(1, 2)
    [line] = said(caplog)
    assert "cannot be kept in" in line
    assert str(tmp_path / "temporary") in line


def test_without_any_place_to_write_to_training_goes_on(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    (tmp_path / "taken").write_text("no directory", "utf-8")
    Training(tmp_path / "taken", [callback(out)]).train(5)
    assert calls(out) == []
    assert len([line for line in said(caplog) if "failed in on_train_begin" in line]) == 1


def test_an_earlier_run_that_is_not_delivered_is_said_in_a_line(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Training(tmp_path, [callback(out, fail="all", flush_limit=0, delivery="inline")]).train(2)
    caplog.clear()
    Training(tmp_path, [callback(tmp_path / "other")]).train(1)
    [line] = said(caplog)
    run = RunFolder.all(tmp_path)[0].run
    assert line == (
        f"Trackers have not got all of 1 earlier run ({run}): python -m "
        f"callback_core.tracking.replay '{tmp_path}' delivers it."
    )


@pytest.mark.parametrize("delivery", ["thread", "inline"])
def test_a_tracker_that_always_raises_is_one_warning_and_one_line(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, delivery: Any
) -> None:
    training = Training(tmp_path, [callback(out, fail="all", flush_limit=0, delivery=delivery)])
    training.begin()
    for _ in range(3):
        training.step()
    assert eventually(lambda: said(caplog))
    training.fire("on_train_end")
    first, last = said(caplog)
    assert first.startswith("file does not take what it is given.")
    assert last.startswith("Training was not affected, but file has not got 3 points (Connection")
    assert caplog.text.count("Traceback") == 1


def test_trackers_that_hang_are_waited_for_together(tmp_path: Path, out: Path) -> None:
    limit, many = 0.5, 40
    trackers = [callback(tmp_path / str(n), hang="open", flush_limit=limit) for n in range(many)]
    training = Training(tmp_path, [*trackers, callback(out)])
    training.begin()
    training.step()
    assert eventually(lambda: all(hangs(tmp_path / str(n)).exists() for n in range(many)))
    training.step()
    begun = time.monotonic()
    training.fire("on_train_end")
    assert time.monotonic() - begun < limit * many / 2  # one after the other would take it all
    assert losses(out) == expected(1, 2)


@pytest.mark.parametrize("method", ["open", "log_metrics", "close"])
@pytest.mark.parametrize("delivery", ["thread", "process"])
def test_a_tracker_that_hangs_keeps_neither_the_training_nor_the_interpreter(
    tmp_path: Path, out: Path, method: str, delivery: str
) -> None:
    done = script(
        "out, method = Path(sys.argv[2]), sys.argv[3]\n"
        "tracker = FileTracker(str(out), hang=method)\n"
        "tracker = TrackerCallback(tracker, delivery=sys.argv[4], flush_limit=0.5)\n"
        "training = Training(Path(sys.argv[1]), [tracker])\n"
        "training.begin()\n"
        "training.step()\n"
        "assert method == 'close' or eventually(lambda: hangs(out).exists())\n"
        "training.step()\n"
        "training.save()\n"
        "print('trained')\n"
        "training.fire('on_train_end')\n",
        tmp_path,
        out,
        method,
        delivery,
    )
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert done.stderr.count("Training was not affected, but file") == 1
    assert "Traceback" not in done.stderr
    assert "close" not in names_of_calls(out)


def test_a_full_disk_is_said_and_loses_nothing_before_it_and_the_run_is_closed(
    tmp_path: Path, out: Path
) -> None:
    done = script(
        "import resource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "tracker = TrackerCallback(FileTracker(os.devnull))\n"
        "training = Training(Path(sys.argv[1]), [tracker])\n"
        "training.begin()\n"
        "for _ in range(5): training.step()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "for _ in range(5): training.step()\n"
        "training.fire('on_train_end')\n"
        "print(tracker._delivery.consumer.done, tracker._delivery.consumer.progress.status)\n",
        tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "True finished\n"), done.stderr
    assert kinds(tmp_path) == ["begin", *["logs"] * 5]
    assert "The journal" in done.stderr
    assert "6 records could not be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_the_user_opened_is_used_and_left_open(tmp_path: Path, out: Path) -> None:
    class Adopting(FileTracker):
        released = False

        def adopt(self) -> str | None:
            return "the user's"

        def release(self) -> None:
            self.released = True

    tracker = callback(out, Adopting)
    Training(tmp_path, [tracker]).train(1)
    assert [c["run"] for c in calls(out) if c["call"] == "open"] == ["the user's"]
    assert statuses(out) == [None]
    assert tracker.tracker.released  # type: ignore[attr-defined]


def test_another_callback_that_changes_its_logs_changes_nothing(tmp_path: Path, out: Path) -> None:
    class Meddling(TrainerCallback):
        def on_log(self, *args: Any, logs: Any = None, **kwargs: Any) -> None:
            logs.clear()

    Training(tmp_path, [Meddling(), callback(out), Meddling(), callback(tmp_path / "o")]).train(2)
    assert losses(out) == expected(1, 2)


def test_a_search_s_trial_is_told_when_its_run_opens(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Noting(FileTracker):
        def open(self, opening: Any) -> str:
            seen.append((opening.name, opening.trial_name, opening.trial_parameters))
            return super().open(opening)

    state = TrainerState(
        max_steps=3,
        is_hyper_param_search=True,
        trial_name="t1",
        trial_params={"lr": 0.1, "token": "hidden"},
    )
    Training(tmp_path, [callback(tmp_path / "o", Noting)], state).train(1)
    assert seen == [("by hand", "t1", {"lr": 0.1, "token": "[redacted]"})]
