"""What a tracker is told of a training, in which order and from which thread; and what is not."""

from __future__ import annotations

import math
import os
from pathlib import Path
from threading import get_ident
from time import time
from typing import Any

import pytest
from run_for_tests import Run
from tracking_for_tests import (
    OF_THE_TRAINING,
    FileTracker,
    Model,
    Training,
    calls,
    curve,
    eventually,
    expected,
    names_of_calls,
    points,
    runs,
    statuses,
    tracked,
    warned,
)

from callback_core import TrainerState
from callback_core.tracking import Tracker, TrackerCallback
from callback_core.tracking.member import DeliveryOptions
from callback_core.tracking.redaction import VARIABLE
from callback_core.tracking.run_folder import RunFolder


@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
def test_a_tracker_gets_all_of_a_training_and_nothing_is_said(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, delivery: Any
) -> None:
    training = Training(tmp_path, [tracked(out, delivery=delivery)])
    training.handler.model = Model()
    training.train(3)
    assert curve(out) == expected(1, 2, 3)
    assert statuses(out) == ["finished"]
    [parameters] = [call["parameters"] for call in calls(out, "log_parameters")]
    assert parameters["layers"] == 2
    assert parameters["pad_token"] == "<pad>"
    assert parameters["run_name"] == "by hand"
    assert parameters["hub_token"] == "[redacted]"
    assert warned(caplog) == []


@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
def test_a_run_is_open_before_anything_is_logged_and_is_closed_last(
    tmp_path: Path, out: Path, delivery: Any
) -> None:
    training = Training(tmp_path, [tracked(out, delivery=delivery, limits={"text": True})])
    training.begin()
    if delivery != "process":  # which only begins to import
        assert eventually(lambda: names_of_calls(out) == ["open", "log_parameters"])
    training.step(loss=0.5, note="a")
    training.log(train_runtime=1.0, train_loss=0.25)
    training.end()
    names = names_of_calls(out)
    assert [*names[:2], names[-1]] == ["open", "log_parameters", "close"]
    assert sorted(names[2:-1]) == ["log_metrics", "log_summary", "log_text"]
    assert [call["call"] for call in calls(out, *OF_THE_TRAINING)] == ["adopt", "begin", "release"]


@pytest.mark.parametrize("delivery", ["thread", "inline"])
def test_the_training_s_thread_calls_only_what_is_quick_unless_delivery_is_inline(
    tmp_path: Path, out: Path, delivery: Any
) -> None:
    Training(tmp_path, [tracked(out, delivery=delivery)]).train(2)
    here, delivering = get_ident(), {call["thread"] for call in calls(out)}
    assert {call["thread"] for call in calls(out, *OF_THE_TRAINING)} == {here}
    assert len(delivering) == 1
    assert (here in delivering) == (delivery == "inline")


def test_inline_all_is_delivered_when_the_event_returns(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [tracked(out, delivery="inline", checkpoints=True)])
    training.begin()
    training.step()
    assert curve(out) == expected(1)
    training.save()
    assert [call["step"] for call in calls(out, "log_files")] == [1]
    training.end()


def test_a_new_run_is_opened_with_what_is_known_of_its_training(tmp_path: Path, out: Path) -> None:
    before = time()
    tracker = tracked(out)
    Training(tmp_path, [tracker]).train(1)
    [opened] = calls(out, "open")
    assert opened["name"] == "by hand"
    assert opened["output_dir"] == str(tmp_path)
    assert Path(opened["folder"]).parent == RunFolder.all(tmp_path)[0].path
    assert before <= opened["time"] <= time()
    assert (opened["run_id"], opened["adopted"], opened["step"]) == (None, False, 0)
    assert (opened["rewind_to"], opened["trial_name"]) == (None, None)
    assert (tracker.run_id, tracker.run_url) == (opened["run"], None)
    assert tracker.state_dict() == {
        "run": RunFolder.all(tmp_path)[0].run,
        "output_dir": str(tmp_path),
        "run_id": opened["run"],
    }


class WithCallsOfItsOwn(FileTracker):
    """The program can log to its open run with calls of a module, which it has imported."""

    sdk = "json"
    longest_wait = math.inf


class WithoutImportedModule(WithCallsOfItsOwn):
    sdk = "nobody_imported_this"


class WithShortWait(WithCallsOfItsOwn):
    longest_wait = 0.05


def test_the_first_step_waits_for_a_run_to_which_the_program_may_log(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [tracked(out, WithCallsOfItsOwn, delay=0.2)])
    training.begin()
    assert calls(out, "open")
    training.end()
    assert warned(caplog) == []


@pytest.mark.parametrize("limits", [{"kind": WithShortWait}, {"open_limit": 0.05}])
def test_the_first_step_waits_for_a_run_no_longer_than_either_limit_and_only_once(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, limits: dict[str, Any]
) -> None:
    options = {"kind": WithCallsOfItsOwn, "hang": "open", "flush_limit": 0.1, **limits}
    training = Training(tmp_path, [tracked(out, **options)])
    training.begin()
    [line] = [line for line in warned(caplog) if "json" in line]
    assert "0.05 s" in line
    training.fire("on_epoch_begin")
    assert [one for one in warned(caplog) if "json" in one] == [line]
    training.end()


def test_the_first_step_waits_for_a_run_until_the_limit_is_over(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = "callback_core.tracking.delivery.thread.monotonic"
    monkeypatch.setattr(clock, lambda: 1000.0)  # which stands still, so the limit is never over
    training = Training(tmp_path, [tracked(out, WithShortWait, delay=0.2)])
    training.begin()
    monkeypatch.undo()
    assert calls(out, "open")
    training.end()


@pytest.mark.parametrize(
    ("kind", "trouble"), [(WithCallsOfItsOwn, "fail"), (WithoutImportedModule, "hang")]
)
def test_the_first_step_waits_neither_for_one_that_fails_nor_for_one_that_nobody_else_uses(
    tmp_path: Path, out: Path, kind: type[FileTracker], trouble: str
) -> None:
    training = Training(tmp_path, [tracked(out, kind, **{trouble: "open"}, flush_limit=0.1)])
    training.begin()  # which would hang
    training.end()


def test_a_search_s_trial_is_told_when_its_run_opens(tmp_path: Path, out: Path) -> None:
    state = TrainerState(
        max_steps=3,
        is_hyper_param_search=True,
        trial_name="t1",
        trial_params={"lr": 0.1, "token": "hidden"},
    )
    Training(tmp_path, [tracked(out)], state).train(1)
    [opened] = calls(out, "open")
    assert opened["trial_name"] == "t1"
    assert opened["trial_parameters"] == {"lr": 0.1, "token": "[redacted]"}


def test_a_hyperparameter_of_a_search_is_a_parameter_of_its_run(tmp_path: Path, out: Path) -> None:
    state = TrainerState(
        max_steps=9, is_hyper_param_search=True, trial_name="t1", trial_params={"layers": 3}
    )
    Training(tmp_path, [tracked(out)], state).train(1)
    [call] = calls(out, "log_parameters")
    assert call["parameters"]["layers"] == 3


def test_a_second_training_is_a_second_run(tmp_path: Path, out: Path) -> None:
    tracker = tracked(out)
    for _ in range(2):
        Training(tmp_path, [tracker]).train(2)
    assert curve(out) == expected(1, 2, 1, 2)
    assert len(runs(out)) == 2
    assert len({call["folder"] for call in calls(out, "open")}) == 2


def test_a_run_that_the_user_opened_is_used_and_left_open(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracked(out, adopts="the user's")
    Training(tmp_path, [tracker]).train(1)
    [opened] = calls(out, "open")
    assert (opened["run"], opened["adopted"]) == ("the user's", True)
    assert statuses(out) == [None]
    assert tracker.state_dict()["run_id"] == "the user's"
    assert warned(caplog) == []


def test_where_the_user_s_run_cannot_be_found_another_is_opened_and_this_is_warned_of(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Training(tmp_path, [tracked(out, adopts="the user's", fail="adopt")]).train(1)
    assert [call["run_id"] for call in calls(out, "open")] == [None]
    assert curve(out) == expected(1)
    assert len(warned(caplog)) == 1


def test_points_have_the_time_at_which_they_were_logged_and_the_epoch(
    tmp_path: Path, out: Path
) -> None:
    up = tmp_path / "up"
    training = Training(tmp_path, [tracked(out, fail="open", until=str(up))])
    training.begin()
    before = time()
    for training.state.epoch in (0.5, 1.0):
        training.step(loss=1, epoch=training.state.epoch)
    training.log(loss=2, epoch=training.state.epoch)
    logged = time()
    up.touch()
    training.end()
    assert all(before <= point.time <= logged for point in points(out))
    losses = [point for point in points(out) if point.name == "train/loss"]
    assert [(point.step, point.epoch) for point in losses] == [(1, 0.5), (2, 1.0), (2, 1.0)]
    assert curve(out, "train/epoch") == [(1, 0.5), (2, 1.0)]  # once for each step


def test_values_are_delivered_as_what_they_are_and_what_is_none_is_named(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [tracked(out)])
    training.begin()
    odd = {"list": [1], "none": None, "large": 10**400}
    training.fire("on_log", logs={1: 2, ("a",): 3.0, "nan": math.nan, "flag": True, **odd})
    training.fire("on_log", logs=None)
    training.fire("on_log", logs={})
    training.end()
    sent = {point.name: point.value for point in points(out)}
    assert math.isnan(sent.pop("train/nan"))
    assert sent == {"train/1": 2, "train/('a',)": 3.0, "train/flag": 1}
    [line] = warned(caplog)
    assert all(name in line for name in odd)


class Least(FileTracker):
    """Has of its own only what each tracker must have."""

    log_summary = Tracker.log_summary
    settings = Tracker.settings
    takes_checkpoints = Tracker.takes_checkpoints


def test_a_tracker_that_says_no_more_than_it_must_gets_points_only(run: Run) -> None:
    run.log(1, loss=0.5, train_loss=0.25, note="a")
    consumer = run.consumer(Least)
    consumer.deliver()
    assert {call["call"] for call in calls(run.out) if call["points"]} == {"log_metrics"}
    assert curve(run.out, "train/train_loss") == [(1, 0.25)]
    assert run.folder.read_tracker("file")["settings"] == {}
    assert not consumer.tracker.takes_checkpoints
    assert not Tracker.rewinds


def test_what_a_tracker_has_to_write_says_so() -> None:
    bare = Tracker()
    for call in (lambda: bare.open(None), lambda: bare.close(None), lambda: bare.log_metrics([])):  # type: ignore[arg-type]
        with pytest.raises(NotImplementedError):
            call()


@pytest.fixture
def off(tmp_path: Path) -> Path:
    """The file that switches a tracker off."""
    file = tmp_path / "off"
    file.touch()
    return file


def test_nothing_is_recorded_for_a_tracker_that_is_switched_off(
    tmp_path: Path, out: Path, off: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracked(out, off=str(off))
    training = Training(tmp_path / "training", [tracker])
    training.log(eval_loss=1.0)  # an evaluation before the training, and one after it
    training.begin()
    training.step()
    training.save()
    training.end()
    training.log(eval_loss=1.0)
    assert set(tracker.state_dict().values()) == {None}
    assert not out.exists()
    assert [path.name for path in (tmp_path / "training").iterdir()] == ["checkpoint-1"]
    assert warned(caplog) == []


def test_others_are_recorded_for_beside_one_that_is_switched_off(
    tmp_path: Path, out: Path, off: Path
) -> None:
    other = tmp_path / "other.jsonl"
    Training(tmp_path, [tracked(out, off=str(off)), tracked(other)]).train(2)
    assert not out.exists()
    assert curve(other) == expected(1, 2)


def test_a_tracker_that_is_switched_on_between_trainings_gets_the_second(
    tmp_path: Path, out: Path, off: Path
) -> None:
    tracker = tracked(out, off=str(off))
    Training(tmp_path / "first", [tracker]).train(1)
    off.unlink()
    Training(tmp_path / "second", [tracker]).train(2)
    assert curve(out) == expected(1, 2)
    assert statuses(out) == ["finished"]


def test_other_processes_than_the_main_one_write_say_and_ask_nothing(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = TrainerState(max_steps=3, is_world_process_zero=False)
    training = Training(tmp_path / "run", [tracked(out, checkpoints=True)], state)
    training.begin()
    training.step()
    training.fire("on_save", checkpoint_dir=str(tmp_path))
    training.end()
    training.log(eval_loss=1)
    assert [*tmp_path.iterdir()] == []
    assert warned(caplog) == []


def test_no_secret_leaves_the_process(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one tracker's callback redacts, and what the environment names, is for all of them."""
    monkeypatch.setenv(VARIABLE, "run_name")
    other = tmp_path / "other.jsonl"
    training = Training(tmp_path, [tracked(out), tracked(other, redact=["learning_rate"])])
    training.handler.model = Model()
    training.begin()
    named = {"https://me:hidden@host": 1.0}
    training.log(note="https://me:hidden@host", api_key="hidden", loss=1, **named)
    training.end()
    everything = "".join(file.read_text("utf-8") for file in tmp_path.rglob("*") if file.is_file())
    for secret in ("hidden", "not for trackers", "secret of the model"):
        assert secret not in everything
    for file in (out, other):
        [told] = calls(file, "log_parameters")
        assert told["parameters"]["learning_rate"] == "[redacted]"
        assert told["parameters"]["run_name"] == "[redacted]"


@pytest.mark.parametrize(
    ("name", "value"),
    [("delivery", "post"), ("open_limit", -1), ("flush_limit", math.nan), ("redact", "name")],
)
def test_a_wrong_argument_is_refused_at_once_and_named(out: Path, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match="TrackerCallback") as refused:
        TrackerCallback(FileTracker(str(out)), **{name: value})
    assert name in str(refused.value)
    assert repr(value) in str(refused.value)
    if name == "delivery":
        assert all(kind in str(refused.value) for kind in ("thread", "inline", "process"))


def test_limits_of_nothing_are_taken(out: Path) -> None:
    callback = TrackerCallback(FileTracker(str(out)), open_limit=0, flush_limit=0, redact=["a"])
    assert callback.options == DeliveryOptions("thread", 0, 0, ("a",))


def test_the_working_directory_may_change(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    training = Training(Path("run"), [tracked(out)])
    training.begin()
    training.step()
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    training.step()
    training.end()
    assert curve(out) == expected(1, 2)
    assert len(RunFolder.all(tmp_path / "run")) == 1


def test_a_process_of_its_own_makes_all_calls_and_its_run_is_known_here(
    tmp_path: Path, out: Path
) -> None:
    tracker = tracked(out, delivery="process")
    training = Training(tmp_path, [tracker])
    training.begin()
    training.step()
    assert eventually(lambda: tracker.state_dict()["run_id"])
    training.end()
    [process] = {call["pid"] for call in calls(out)}
    assert process != os.getpid()
    assert {tracker.state_dict()["run_id"]} == runs(out)


class WithoutParameters(FileTracker):
    log_parameters = Tracker.log_parameters
    close = Tracker.close


def test_a_tracker_that_lacks_a_method_is_refused_by_name(out: Path) -> None:
    with pytest.raises(TypeError) as refused:
        TrackerCallback(WithoutParameters(out / "store"))
    assert all(name in str(refused.value) for name in ("WithoutParameters", "log_parameters"))
