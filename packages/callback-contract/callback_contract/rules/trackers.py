"""Trackers: what a `Tracker` is told, in which order and how often, and what its failures cost."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, time
from typing import Any, Final

from callback_contract._case import Case, Config, Training
from callback_contract._heard import heard
from callback_contract._rule import ContractViolation, require, rule
from callback_contract._stored import comes_true, said
from callback_core import TrainerState
from callback_core.tracking import TrackerCallback

DIED: Final = RuntimeError("CUDA out of memory")
NAMES: Final = ("train/a", "train/b", "train/c")


def _train(case: Case, callback: Any, *logs: Any, **how: Any) -> Training:
    """Train a step for each of `logs`, to the end, and return the training."""
    training = case.training(callback, **how)
    training.begin()
    training.fire("on_epoch_begin")
    for values in logs:
        training.step(values)
    training.end()
    return training


def _after_a_step(training: Training) -> bool:
    """Do a step, and return true."""
    training.step({"note": 1.0})
    return True


def _losses(*losses: float) -> list[dict[str, float]]:
    return [{"loss": loss} for loss in losses]


@rule(
    "TRK-001",
    since=(1, 1),
    needs=["tracking"],
    why="A store takes nothing before its run is open, and nothing after it is closed: "
    "huggingface/transformers#46935.",
    mend="Open once, send, close once; leave that to TrackerCallback.",
)
def a_run_is_opened_first_and_closed_last(case: Case) -> None:
    """A tracker is asked to open, given the parameters, then all else, and closed at last: once."""
    callback, told = heard(case)
    training = case.training(callback)
    training.begin()
    training.fire("on_epoch_begin")
    opened = comes_true(case, lambda: "log_parameters" in told.names)
    for logs in ({"loss": 0.5, "note": "a"}, {"loss": 0.25}, {"train_loss": 0.5}):
        training.step(logs)
    training.end()
    require(opened, "when the first epoch began, the run was not opened")
    names = told.names
    require(names[:2] == ["open", "log_parameters"], f"the first calls are {names[:2]}")
    require(names[-1:] == ["close"], f"the last call is {names[-1:]}")
    once = [name for name in ("open", "log_parameters", "close") if names.count(name) != 1]
    require(not once, f"{once} were not called once: {names}")
    kinds = {
        "train/loss": "log_metrics",
        "train/note": "log_text",
        "train/train_loss": "log_summary",
    }
    for name, kind in kinds.items():
        found = [c["call"] for c in told.calls() if name in [point[0] for point in c["points"]]]
        require({*found} == {kind}, f"{name} was sent by {found} and not by {kind}")
    require([c["call"] for c in told.calls()][-1] == "release", "release was not called at last")


@rule(
    "TRK-002",
    since=(1, 1),
    needs=["tracking"],
    why="A store that takes a second for each call takes an hour of a training of an hour: "
    "Lightning-AI/pytorch-lightning#12834.",
    mend="Leave delivery='thread' to TrackerCallback.",
)
def a_thread_delivers_beside_the_training(case: Case) -> None:
    """With `delivery="thread"`, one thread calls the tracker, and not the training's."""
    callback, told = heard(case, fails={"log_metrics": {"seconds": 0.1}})
    callback.delivery = "thread"
    training = case.training(callback)
    training.begin()
    begun = monotonic()
    for _ in range(5):
        training.step({"loss": 0.5})
    took = monotonic() - begun
    training.end()
    by = {c["call"]: c["thread"] for c in told.calls()}
    here = threading.current_thread().name
    delivering = {thread for call, thread in by.items() if call not in ("adopt", "release")}
    require(len(delivering) == 1 and here not in delivering, f"the calls came from {by}")
    require(by["adopt"] == by["release"] == here, f"adopt and release came from {by}")
    require(took < 0.4 or len(told.calls("log_metrics")) < 5, f"five logs took {took:.2f} s")


@rule(
    "TRK-003",
    since=(1, 1),
    needs=["tracking"],
    why="A context of the training's thread is all that some stores know, as Flyte's; and tests "
    "want a point to be there when it is logged.",
    mend="Leave delivery='inline' to TrackerCallback.",
)
def inline_delivers_in_the_trainings_thread(case: Case) -> None:
    """With `delivery="inline"`, the training's thread calls, and a point is there at once."""
    callback, told = heard(case, fails={"log_metrics": {"error": "ConnectionError", "times": 1}})
    callback.delivery = "inline"
    training = case.training(callback)
    training.begin()
    for step in (1, 2, 3):
        training.step({"loss": step / 8})
    require(not told.points(), "what has just failed is tried again at once, at each log")
    comes_true(case, lambda: _after_a_step(training) and told.points())
    found = told.points()
    training.step({"loss": 0.75})
    there = told.points()
    training.end()
    threads = {call["thread"] for call in told.calls()}
    require(threads == {threading.current_thread().name}, f"the calls came from {threads}")
    require(found == [(1, 0.125), (2, 0.25), (3, 0.375)], f"after a failure there was {found}")
    require(there[-1][1] == 0.75, f"when on_log had returned, there was {there}")


@rule(
    "TRK-004",
    since=(1, 1),
    needs=["tracking"],
    why="A request with more than 1,000 values is refused as a whole: mlflow/mlflow#6049. And one "
    "for each value takes a hundred times as long.",
    mend="Say limits.batch_size, and leave the rest to TrackerCallback.",
)
def what_waits_is_sent_in_batches_as_large_as_it_takes(case: Case) -> None:
    """Points that have waited go together, as many in a call as the tracker takes, in order."""
    callback, told = heard(case, fails={"open": {"seconds": 0.3}}, limits={"batch_size": 4})
    callback.delivery = "thread"
    _train(case, callback, *_losses(*(step / 8 for step in range(1, 11))))
    sizes = [len(call["points"]) for call in told.calls("log_metrics")]
    require(max(sizes) == 4 and len(sizes) <= 8, f"20 points were sent in calls of {sizes}")
    expected = [(step, step / 8) for step in range(1, 11)]
    require(told.points() == expected, f"they came as {told.points()}")
    callback, told = heard(case, "large", limits={"batch_size": 4})
    _train(case, callback, {f"value_{n}": n / 8 for n in range(10)})
    sizes = [len(call["points"]) for call in told.calls("log_metrics")]
    require(sizes == [4, 4, 3], f"11 points of one log were sent in calls of {sizes}")


@rule(
    "TRK-005",
    since=(1, 1),
    needs=["tracking"],
    why="A name with a parenthesis, or one that is too long, makes the store refuse the log: "
    "verl-project/verl#119, huggingface/sentence-transformers#2725.",
    mend="Say limits.key_characters and limits.key_length, and leave the rest to TrackerCallback.",
)
def names_are_within_the_limits(case: Case) -> None:
    """Names have the characters and the length that the tracker takes; what is cut is named."""
    limits = {"key_characters": r"\w/", "key_length": 12}
    callback, told = heard(case, limits=limits)
    callback.tracker.parameters_of = lambda arguments, config: {}
    logs = {"a(b)": 1.0, "eleven_chars": 2.0, "eleven_other": 3.0, "six_ch": 4.0, "eval_x y": 5.0}
    with said() as lines:
        _train(case, callback, logs, logs)
    names = {point[0] for call in told.calls("log_metrics") for point in call["points"]}
    expected = {"train/a_b_", "train/eleven", "train/six_ch", "eval/x_y", "train/epoch"}
    require(names == expected, f"of {[*logs]} the tracker was told {sorted(names)}")
    text = "\n".join(lines)
    for name, why in (
        ("eleven_chars", "its name is cut to train/eleven"),
        ("eleven_other", "has the name of another: train/eleven"),
    ):
        require(f"{name}: {why}" in text, f"no warning says '{name}: {why}': {lines}")
    unnamed = "six_ch" not in text and "a(b)" not in text
    require(unnamed, f"names that were not cut are named: {lines}")


@rule(
    "TRK-006",
    since=(1, 1),
    needs=["tracking"],
    why="An argument of more than 250 characters, and more than 100 of them, ended trainings: "
    "huggingface/transformers#8849, huggingface/transformers#11342.",
    mend="Say limits.parameter_length and parameter_count, and leave the rest to TrackerCallback.",
)
def parameters_are_within_the_limits(case: Case) -> None:
    """Parameters have the length and the count that the tracker takes; each that is cut is named.

    Of one that is cut, the beginning is kept, and a sign says that it goes on.
    """
    callback, told = heard(case, limits={"parameter_length": 10, "parameter_count": 4})
    callback.tracker.parameters_of = lambda arguments, config: {
        "whole": "0123456789", "long": "0123456789a", "number": 0.5, "list": [1, 2],
        "fifth": 5, "sixth": 6,
    }  # fmt: skip
    with said() as lines:
        _train(case, callback, {"loss": 0.5})
    found = told.calls("log_parameters")[0]["parameters"]
    expected = {"whole": "0123456789", "long": "012345678…", "number": 0.5, "list": [1, 2]}
    require(found == expected, f"the tracker was told {found}")
    text = "\n".join(lines)
    for name, why in (
        ("long", "cut to 10 characters"),
        ("fifth", "left out: more than 4 parameters"),
        ("sixth", "left out: more than 4 parameters"),
    ):
        require(f"{name}: {why}" in text, f"no warning says '{name}: {why}': {lines}")
    callback, told = heard(case, "short", limits={"key_characters": r"\w", "key_length": 5})
    callback.tracker.parameters_of = lambda arguments, config: {
        "a.b": 1, "a-b": 2, "abcdefg": 3, "abcde": 4, "five5": 5,
    }  # fmt: skip
    with said() as lines:
        _train(case, callback, {"x": 0.5})
    found = told.calls("log_parameters")[0]["parameters"]
    require(found == {"a_b": 1, "abcde": 3, "five5": 5}, f"the tracker was told {found}")
    text = "\n".join(lines)
    for named in (
        "a-b: left out: has the name of another: a_b",
        "abcdefg: its name is cut to abcde",
        "abcde: left out: has the name of another: abcde",
    ):
        require(named in text, f"no warning says {named!r}: {lines}")
    require("five5" not in text, f"one that was not cut is named: {lines}")


@rule(
    "TRK-007",
    since=(1, 1),
    needs=["tracking"],
    why="Points that get the time of their delivery draw an hour's outage as a wall: "
    "clearml/clearml#766. And a curve over epochs needs the epoch.",
    mend="Send the time and the epoch of the point.",
)
def a_point_has_its_time_and_epoch(case: Case) -> None:
    """Each point comes with its step, the time at which it was logged, and the epoch."""
    callback, told = heard(case, fails={"open": {"seconds": 0.2}})
    before = time()
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5, "note": "a"})
    training.step({"loss": 0.25})
    logged = time()
    training.end()
    points = [
        point for call in told.calls() for point in call["points"] if point[0] != "train/epoch"
    ]
    found = [(name, step, epoch) for name, _, step, _, epoch in points]
    expected = [("train/loss", 1, 0.5), ("train/note", 1, 0.5), ("train/loss", 2, 1.0)]
    require(sorted(found) == sorted(expected), f"the points are {found}")
    require(all(before <= point[3] <= logged for point in points), "a point has another time")
    epochs = told.points("train/epoch")
    require(epochs == [(1, 0.5), (2, 1.0)], f"the epochs are {epochs}")


@rule(
    "TRK-008",
    since=(1, 1),
    needs=["tracking"],
    why="A name that the user gave was ignored, and a search's trials all had one name: "
    "huggingface/transformers#30563.",
    mend="Hand on what the arguments and the state have.",
)
def a_new_run_is_opened_with_what_is_known(case: Case) -> None:
    """A new run is opened with its name, output directory, step, time, and a folder of its own.

    In a search, also with the trial's name and parameters; else without.
    """
    callback, told = heard(case)
    before = time()
    _train(case, callback, {"loss": 0.5}, args=case.arguments(run_name="a name"))
    state = TrainerState(epoch=0.0, max_steps=4, is_hyper_param_search=True)
    state.trial_name, state.trial_params = "trial-7", {"learning_rate": 0.5}
    _train(case, callback, {"loss": 0.5}, state=state)
    first, second = told.calls("open")
    expected: dict[str, Any] = {"name": "a name", "run_id": None, "adopted": False, "step": 0}
    expected |= {"rewind_to": None, "trial_name": None, "trial_parameters": None}
    expected |= {"output_dir": str(case.output_dir.absolute())}
    wrong = {name: first[name] for name, value in expected.items() if first[name] != value}
    require(not wrong, f"it was opened with {wrong}, and not with {expected}")
    require(before <= first["time"] <= first["begun"], "the time is not that of the beginning")
    below = Path(first["folder"]).is_relative_to(case.output_dir.absolute() / "tracking")
    require(below, f"the folder is {first['folder']}")
    require(first["folder"] != second["folder"], "two runs have one folder")
    trial = (second["trial_name"], second["trial_parameters"])
    require(trial == ("trial-7", {"learning_rate": 0.5}), f"the trial is {trial}")
    require(second["run_id"] is None, "a second training is opened in the run of the first")


_METHODS: Final = ("open", "log_parameters", "log_metrics", "log_text", "log_summary", "log_files")


@rule(
    "TRK-009",
    since=(1, 1),
    needs=["tracking"],
    why="A connection that breaks for a second is the rule in a run of days: "
    "Lightning-AI/pytorch-lightning#6641.",
    mend="Raise what the SDK raises: anything but Rejected is tried again.",
)
def what_fails_once_is_tried_again(case: Case) -> None:
    """Whatever fails once is tried again, with the same points: nothing is lost or left out."""
    fails = {name: {"error": "ConnectionError", "times": 1} for name in (*_METHODS, "close")}
    callback, told = heard(case, fails=fails, checkpoints=True)
    callback.delivery = "thread"
    training = case.training(callback)
    with said() as lines:
        training.begin()
        training.step({"loss": 0.5, "note": "a"})
        training.save()
        training.log({"total_flos": 0.5})
        training.end()
    names = told.names
    lost = [name for name in (*_METHODS, "close") if name not in names]
    require(not lost, f"{lost} failed once, and were not tried again")
    kept = [told.points(f"train/{name}") for name in ("loss", "note", "total_flos")]
    require(kept == [[(1, 0.5)], [(1, "a")], [(1, 0.5)]], f"the points that came are {kept}")
    require(told.status == ["finished"], f"it was closed as {told.status}")
    wrong = [line for line in lines if "has not got" in line or "did not take" in line]
    require(not wrong, f"though all came, it said {wrong}")
    require(len(lines) == 1, f"of seven failures in a row it told {len(lines)} times: {lines}")


@rule(
    "TRK-010",
    since=(1, 1),
    needs=["tracking"],
    why="One value that is refused makes a store refuse all it was sent with: "
    "facebookresearch/gcm#165.",
    mend="Raise Rejected for what the store will never take.",
)
def what_is_rejected_costs_only_itself(case: Case) -> None:
    """What a tracker rejects is left out and named, with the reason, and all else is sent, once.

    So are parameters and checkpoints that are rejected.
    """
    rejected = {"error": "Rejected"}
    fails = {"log_metrics": {**rejected, "point": "train/b"}, "open": {"seconds": 0.1}}
    callback, told = heard(case, fails=fails)
    with said() as lines:
        _train(case, callback, *[{"a": n / 8, "b": n / 8, "c": n / 8} for n in (1, 2, 3)])
    found = [told.points(name) for name in NAMES]
    require(
        found == [[(1, 0.125), (2, 0.25), (3, 0.375)], [], [(1, 0.125), (2, 0.25), (3, 0.375)]],
        f"of a, b and c, of which b is rejected, the tracker has {found}",
    )
    require(any("train/b: rejected: " in line for line in lines), f"it said {lines}")
    fails = {"log_metrics": {**rejected, "point": "train/b"}}
    callback, told = heard(case, "pairs", fails=fails, limits={"batch_size": 2})
    _train(case, callback, {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5})
    found = [told.points(name) for name in (*NAMES, "train/d")]
    require(found == [[(1, 0.5)], [], [(1, 0.5)], [(1, 0.5)]], f"in pairs, it has {found}")
    fails = {"log_parameters": rejected, "log_files": rejected}
    callback, told = heard(case, "files", fails=fails, checkpoints=True)
    training = case.training(callback)
    with said() as lines:
        training.begin()
        training.step({"loss": 0.5})
        training.save()
        training.step({"loss": 0.25})
        training.end()
    require(told.points() == [(1, 0.5), (2, 0.25)], f"the points that came are {told.points()}")
    text = "\n".join(lines)
    for name in ("parameters", "checkpoint-1"):
        require(f"{name}: rejected: " in text, f"that {name} are rejected, nobody said: {lines}")
    once = len(told.calls("log_files", failed=True)) == 1
    require(once, "what was rejected was tried again")


@rule(
    "TRK-011",
    since=(1, 1),
    needs=["tracking"],
    why="A point that a store answers with an error 500 each time kept all that came behind it "
    "from being sent: facebookresearch/gcm#165.",
    mend="Raise what the SDK raises. After some tries, what comes behind goes first.",
)
def a_point_that_always_fails_costs_only_itself(case: Case) -> None:
    """A point that fails however often it is tried is left out and named once others are taken.

    All others are sent, once and in order, without the patience for it again.
    """
    fails = {"log_metrics": {"error": "RuntimeError", "point": "train/b"}}
    callback, told = heard(case, fails=fails)
    callback.delivery, callback.flush_limit = "thread", 30.0
    logs = [{"a": n / 8, "b": n / 8, "c": n / 8} for n in range(1, 7)]
    with said() as lines:
        _train(case, callback, *logs)
    expected = [(n, n / 8) for n in range(1, 7)]
    found = [told.points(name) for name in NAMES]
    require(found == [expected, [], expected], f"of a, b and c, the tracker has {found}")
    require(any("train/b: failed: RuntimeError" in line for line in lines), f"it said {lines}")
    tried = len(told.calls("log_metrics", failed=True))
    require(4 <= tried <= 30, f"it was tried {tried} times")
    require(told.status == ["finished"], f"it was closed as {told.status}")


@rule(
    "TRK-012",
    since=(1, 1),
    needs=["tracking"],
    why="Where everything fails, it is the service, and no point is to blame: "
    "Lightning-AI/pytorch-lightning#6641.",
    mend="Leave a point out only where the tracker takes others.",
)
def where_all_fails_nothing_is_left_out(case: Case) -> None:
    """Where a tracker takes no point at all for long, none is left out: all come later."""
    there = case.output_dir.parent / "there"
    fails = {"log_metrics": {"error": "RuntimeError", "until": str(there)}}
    callback, told = heard(case, fails=fails)
    callback.delivery, callback.flush_limit = "inline", 30.0
    training = case.training(callback)
    with said() as lines:
        training.begin()
        for n in range(1, 5):
            training.step({"loss": n / 8})
        threading.Timer(5.5, there.touch).start()
        training.end()
    found = told.points()
    require(found == [(n, n / 8) for n in range(1, 5)], f"of four points, it has {found}")
    wrong = [line for line in lines if "did not take" in line or "has not got" in line]
    require(not wrong, f"it said {wrong}")


@rule(
    "TRK-013",
    since=(1, 1),
    needs=["tracking"],
    why="Parameters that a store answers with an error kept all points from being sent: "
    "mlflow/mlflow#7152.",
    mend="Raise what the SDK raises. After some tries, the points go first.",
)
def parameters_that_always_fail_cost_no_point(case: Case) -> None:
    """Parameters that fail however often are named, and points are sent; once more at the end."""
    fails = {"log_parameters": {"error": "RuntimeError"}}
    callback, told = heard(case, fails=fails)
    callback.delivery, callback.flush_limit = "thread", 30.0
    with said() as lines:
        _train(case, callback, *_losses(0.5, 0.25))
    require(told.points() == [(1, 0.5), (2, 0.25)], f"the tracker has {told.points()}")
    require(any("parameters: failed: RuntimeError" in line for line in lines), f"it said {lines}")
    tried = told.calls("log_parameters", failed=True)
    last = told.calls("log_metrics")[-1]["begun"]
    require(len(tried) >= 5 and tried[-1]["begun"] >= last, "they were not tried again at last")
    require(told.status == ["finished"], f"it was closed as {told.status}")


@rule(
    "TRK-014",
    since=(1, 1),
    needs=["tracking"],
    why="A call that never comes back held the end of training for ever (ClearML's close()), and "
    "15 hours of eight GPUs in one case: radixark/miles#2571.",
    mend="Leave threads that do not come back alone; TrackerCallback does.",
)
def a_call_that_hangs_is_given_up(case: Case) -> None:
    """Where a call hangs, the end waits to its limit, says which call, and sends nothing more.

    A later training with the same callback is sent all the same.
    """
    back = case.output_dir.parent / "back"
    fails = {"log_metrics": {"seconds": 20.0, "until": str(back), "point": "train/loss"}}
    callback, told = heard(case, fails=fails)
    callback.delivery, callback.flush_limit = "thread", 0.3
    with said() as lines:
        begun = monotonic()
        training = _train(case, callback, *_losses(0.5, 0.25))
        took = monotonic() - begun
    require(0.25 < took < 3.0, f"with a flush_limit of 0.3 s the end took {took:.1f} s")
    text = "\n".join(lines)
    named = re.search(
        r"has not got [1-9]\d* points \(log_metrics has not come back for \d+ s\)", text
    )
    require(named and "callback_core.tracking.replay" in text, f"it said {lines}")
    later = case.training(callback)
    callback.flush_limit = 10.0
    later.begin()
    later.step({"later": 0.5})
    later.end()
    require(told.points("train/later") == [(1, 0.5)], "a later training was not sent")
    before = told.names
    back.touch()
    comes_true(case, lambda: told.points())
    training.fire("on_train_end")
    more = told.names[len(before) :]
    require(more == ["log_metrics"], f"when it came back, it was told more: {more}")


@rule(
    "TRK-015",
    since=(1, 1),
    needs=["tracking"],
    why="A run that does not open held trainings for minutes, without a word (MLflow: 246 s where "
    "its server refuses, 1,206 s where it hangs).",
    mend="Let open take its time; TrackerCallback says so, and waits no longer at the end.",
)
def a_run_that_does_not_open_is_said_and_not_waited_for(case: Case) -> None:
    """A run that is not open after `open_limit` is said once, and the end does not wait for it."""
    back = case.output_dir.parent / "back"
    callback, _ = heard(case, fails={"open": {"seconds": 20.0, "until": str(back), "times": 1}})
    callback.delivery, callback.open_limit, callback.flush_limit = "thread", 0.2, 15.0
    training = case.training(callback)
    with said() as lines:
        training.begin()
        training.step({"loss": 0.5})
        comes_true(case, lambda: _after_a_step(training) and "has not opened" in str(lines))
        training.step({"loss": 0.5})
        begun = monotonic()
        training.end()
        took = monotonic() - begun
    back.touch()
    slow = [line for line in lines if "has not opened its run in 0.2 s" in line]
    require(len(slow) == 1, f"it said {lines}")
    require(took < 5.0, f"the end waited {took:.1f} s for a run that does not open")
    require(any("open has not come back" in line for line in lines), f"it said {lines}")


@rule(
    "TRK-016",
    since=(1, 1),
    needs=["tracking"],
    why="Users open a run themselves to have more in it than a callback sends, and found it closed "
    "(wandb/wandb#6779), or two runs.",
    mend="Return its id from adopt, and do not close what is adopted.",
)
def a_run_of_the_users_is_used_and_not_closed(case: Case) -> None:
    """A run that the user has opened is gone on with, and told of the end without a status."""
    callback, told = heard(case, adopts="the user's")
    with said() as lines:
        _train(case, callback, {"loss": 0.5})
    opened = told.calls("open")[0]
    require((opened["run_id"], opened["adopted"]) == ("the user's", True), f"it opened {opened}")
    require(told.status == [None], f"it was closed as {told.status}")
    require(not lines, f"it said {lines}")
    require(callback.state_dict()["run_id"] == "the user's", f"it keeps {callback.state_dict()}")
    callback, told = heard(
        case, "second", adopts="another", fails={"adopt": {"error": "RuntimeError"}}
    )
    with said() as lines:
        _train(case, callback, {"loss": 0.5})
    opened = told.calls("open")[0]
    require(opened["run_id"] is None, "where adopt fails, it opens no run of its own")
    require(told.points() == [(1, 0.5)] and lines, f"where adopt fails, it said {lines}")


@rule(
    "TRK-017",
    since=(1, 1),
    needs=["tracking"],
    why="A tracker that was switched off left files, threads and warnings (WANDB_DISABLED, "
    "huggingface/transformers#48874).",
    mend="Say so by Tracker.disabled.",
)
def one_that_is_switched_off_does_nothing(case: Case) -> None:
    """A tracker that is switched off is told nothing, and nothing is written for it."""
    callback, told = heard(case, disabled=True)
    with said() as lines:
        training = case.training(callback)
        training.run()
        training.evaluate()
    require(not told.calls(), f"it was told {[c['call'] for c in told.calls()]}")
    require(not (case.output_dir / "tracking").exists(), "a journal was written")
    require(not lines, f"it said {lines}")


@rule(
    "TRK-018",
    since=(1, 1),
    needs=["tracking"],
    why="What a store does not take made it refuse the rest (facebookresearch/gcm#165), and what "
    "is left out without a word is looked for in vain (huggingface/transformers#4883).",
    mend="Say in Limits what the store takes.",
)
def what_a_tracker_cannot_take_is_named(case: Case) -> None:
    """A tracker gets neither text nor what is not finite where it takes none; both are named."""
    callback, told = heard(case, limits={"text": False, "non_finite": False})
    logs = {"loss": 0.5, "note": "a", "nan": math.nan, "infinite": -math.inf, "flag": True}
    logs |= {"list": [1], "large": 10**400, "date": _Scalar(ValueError("no number"))}
    with said() as lines:
        _train(case, callback, logs)
    names = sorted({point[0] for call in told.calls() for point in call["points"]})
    require(names == ["train/epoch", "train/flag", "train/loss"], f"it was sent {names}")
    text = "\n".join(lines)
    for part in (
        "list: it is a list, not a number", "large: it is too large",
        "date: it is a _Scalar, not a number", "note: it is text", "nan: it was nan at step 1",
    ):  # fmt: skip
        require(part in text, f"no warning says {part!r}: {lines}")
    require("and 1 more" in text, f"that there is a sixth is not said: {lines}")
    callback, told = heard(case, "other")
    _train(
        case,
        callback,
        {"loss": math.nan, "note": "a", "low": -math.inf, "count": 3, "kind": _Text("k")},
    )
    sent = {point[0]: point[1] for call in told.calls() for point in call["points"]}
    whole = math.isnan(sent["train/loss"]) and sent["train/low"] == -math.inf
    require(whole and sent["train/note"] == "a", f"one that takes all was sent {sent}")
    require(sent["train/count"] == 3 and sent["train/kind"] == "k", f"it was sent {sent}")


class _Text(str):
    """A string of another class, as an enumeration's."""

    def __str__(self) -> str:
        return "shown"


class _Scalar:
    """A scalar that cannot be read."""

    shape = ()

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __float__(self) -> float:
        raise self.error


@rule(
    "TRK-019",
    since=(1, 1),
    needs=["tracking"],
    why="With two trackers, one saw what the other had taken from the logs (transformers 5.23.0), "
    "and a second one of a class overwrote the first.",
    mend="Leave the journal to TrackerCallback; keep nothing on the class.",
)
def several_trackers_get_the_same(case: Case) -> None:
    """Each of several trackers of a training gets all of it, once, also two of one name."""
    first, told_first = heard(case)
    second, told_second = heard(case, "other")
    second.tracker.name = "heard"
    training = case.training(first, second)
    training.begin()
    training.fire("on_epoch_begin")
    for step in (1, 2, 3):
        training.step({"loss": step / 8, "same": 0.5})
    training.step({"loss": 0.5})
    training.log({"loss": 0.5})
    training.end()
    expected = [(1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5), (4, 0.5)]
    for told in (told_first, told_second):
        require(told.points() == expected, f"one has {told.points()}")
        require(told.status == ["finished"], f"one was closed as {told.status}")
    journals = [*case.output_dir.glob("tracking/*/*.jsonl")]
    require(len(journals) == 1, f"one training has {len(journals)} journals")
    logs = journals[0].read_text().count('"kind":"logs"')
    require(logs == 5, f"five logs are {logs} records of the journal")


@rule(
    "TRK-020",
    since=(1, 1),
    needs=["tracking"],
    why="The one tracker that is down must not cost the others their points: "
    "Lightning-AI/pytorch-lightning#21294.",
    mend="Leave each tracker its own thread; TrackerCallback does.",
)
def trackers_do_not_wait_for_one_another(case: Case) -> None:
    """Where one tracker hangs, another of the same training gets all, and the end waits once."""
    back = case.output_dir.parent / "back"
    stuck = {"seconds": 20.0, "until": str(back)}
    hanging, _ = heard(case, "hanging", fails={"log_metrics": stuck})
    second, _ = heard(case, "second", fails={"log_metrics": stuck})
    good, told = heard(case)
    for callback in (hanging, second, good):
        callback.delivery, callback.flush_limit = "thread", 1.0
    begun = monotonic()
    _train_all(case, (hanging, second, good))
    took = monotonic() - begun
    back.touch()
    require(told.points() == [(1, 0.5), (2, 0.25)], f"the other one has {told.points()}")
    require(told.status == ["finished"], f"the other one was closed as {told.status}")
    require(took < 1.9, f"with two that hang, and limits of 1 s, the end took {took:.1f} s")


def _train_all(case: Case, callbacks: Sequence[Any]) -> None:
    training = case.training(*callbacks)
    training.begin()
    training.step({"loss": 0.5})
    training.step({"loss": 0.25})
    training.end()


@rule(
    "TRK-021",
    since=(1, 1),
    needs=["tracking"],
    why="A last evaluation was the reason for a run of its own: comet-ml/issue-tracking#536.",
    mend="Open the run that was closed last again, by its id.",
)
def what_follows_the_end_is_sent_to_its_run(case: Case) -> None:
    """What is logged after the end opens the run again, and closes it as it was, each time."""
    callback, told = heard(case)
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    training.end(DIED)
    for number in (1, 2):
        training.evaluate({"eval_late": number / 8})
        done = comes_true(case, lambda n=number: len(told.status) == n + 1)  # type: ignore[misc]
        require(done, f"after evaluation {number} the run was closed {told.status}")
    runs = {call["run"] for call in told.calls("log_metrics")}
    require(len(runs) == 1, f"the points are in {len(runs)} runs")
    require(told.status == ["failed"] * 3, f"it was closed as {told.status}")
    late = told.points("eval/late")
    require(late == [(1, 0.125), (1, 0.25)], f"the evaluations are {late}")
    again = [call["run_id"] for call in told.calls("open")]
    require(again[0] is None and {*again[1:]} == runs, f"it was opened with {again}")
    require(len(told.calls("log_parameters")) == 1, "parameters that it has were sent again")


@rule(
    "TRK-022",
    since=(1, 1),
    needs=["tracking"],
    why="An upload races with the loop that deletes or changes the checkpoint: "
    "axolotl-ai-cloud/axolotl#2630.",
    mend="Upload from where log_files is told, within the call.",
)
def checkpoints_are_kept_until_they_are_sent(case: Case) -> None:
    """A checkpoint is there, whole, when it is sent, whatever the loop does to it, and not after.

    One that is not taken is not asked for.
    """
    callback, told = heard(case, checkpoints=True, fails={"open": {"seconds": 0.2}})
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    saved = training.save()
    files = {file.name: file.stat().st_size for file in saved.iterdir()}
    for file in saved.iterdir():
        file.unlink()
    training.save()
    (saved / "trainer_state.json").unlink()
    training.end()
    uploads = told.calls("log_files")
    found = [(call["name"], call["step"], call["files"]) for call in uploads]
    require(("checkpoint-1", 1, files) in found, f"of {files}, this was sent: {found}")
    left = [*case.output_dir.glob("tracking/*/files/*/*")]
    require(not left, f"what was sent is kept: {left}")
    callback, told = heard(case, "other")
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    training.save()
    training.end()
    require(not told.calls("log_files"), "one that takes no checkpoints was sent one")


@rule(
    "TRK-023",
    since=(1, 1),
    needs=["tracking"],
    why="A delivery that does not exist, or a limit below 0, is found hours later, if at all.",
    mend="Hand delivery, open_limit, flush_limit and redact on to TrackerCallback.",
)
def wrong_settings_of_delivery_are_refused(case: Case) -> None:
    """A wrong `delivery`, `open_limit`, `flush_limit` or `redact` is a ValueError that names it."""
    callback, _ = heard(case)
    wrong: dict[str, Any] = {
        "delivery": "post",
        "open_limit": -1.0,
        "flush_limit": math.nan,
        "redact": "secret",
    }
    for name, value in wrong.items():
        try:
            TrackerCallback.__init__(callback, callback.tracker, **{name: value})
        except ValueError as error:
            named = name in str(error) and repr(value) in str(error)
            named = named and type(callback).__name__ in str(error)
            require(named, f"of {name}={value!r} it says {error}")
            if name == "delivery":
                choices = all(choice in str(error) for choice in ("thread", "inline", "process"))
                require(choices, f"it does not name the choices: {error}")
        else:
            raise ContractViolation(f"{name}={value!r} is taken")
    right: Any = {"delivery": "inline", "open_limit": 0.0, "flush_limit": 0, "redact": ["secret"]}
    TrackerCallback.__init__(callback, callback.tracker, **right)
    for name, value in right.items():
        got = getattr(callback, name)
        require(
            tuple(got) == ("secret",) if name == "redact" else got == value, f"{name} is {got!r}"
        )


@rule(
    "TRK-024",
    since=(1, 1),
    needs=["tracking"],
    why="What is secret for a program is nothing that anybody could know by its name or form: "
    "kohya-ss/sd-scripts#1123.",
    mend="Hand redact on to TrackerCallback.",
)
def names_that_the_user_redacts_are_redacted(case: Case) -> None:
    """Values of names in `redact` and CALLBACKS_REDACT are redacted, for all trackers.

    So they are in logs, of any case.
    """
    import os

    was = os.environ.get("CALLBACKS_REDACT")
    os.environ["CALLBACKS_REDACT"] = " patient , ward"
    try:
        first, told = heard(case)
        second, told_second = heard(case, "second")
        second.redact = ("Client",)
        args = case.arguments(more={"client": "moon", "ward": 7, "a": {"patient": ["moon"]}})
        _train_more(case, (first, second), args)
    finally:
        del os.environ["CALLBACKS_REDACT"]
        if was is not None:
            os.environ["CALLBACKS_REDACT"] = was
    for of in (told, told_second):
        found = of.calls("log_parameters")[0]["parameters"]
        shown = (found["client"], found["ward"], found["a"])
        require(
            shown == ("[redacted]", "[redacted]", {"patient": "[redacted]"})
            and of.points("train/client") == [(1, "[redacted]")],
            f"of names that are redacted it was told {shown} and {of.points('train/client')}",
        )


def _train_more(case: Case, callbacks: Sequence[Any], args: Any) -> None:
    training = case.training(*callbacks, args=args)
    training.begin()
    training.fire("on_epoch_begin")
    training.step({"loss": 0.5, "client": "moon"})
    training.end()


@rule(
    "TRK-028",
    since=(1, 1),
    needs=["tracking"],
    why="What takes too much out of a command line makes a run that nobody can repeat "
    "(allenai/rslearn#687), and what takes too little shows a key (kohya-ss/sd-scripts#1123).",
    mend="Leave redaction to TrackerCallback.",
)
def of_a_string_only_the_secret_is_redacted(case: Case) -> None:
    """Of a string, the secret is redacted and nothing else: quotes, names and other parts stay."""
    strings = {
        "--api-key=moon --lr 0.5": "--api-key=[redacted] --lr 0.5",
        "{'password': 'moon shine', 'lr': 1}": "{'password': '[redacted]', 'lr': 1}",
        'token="moon", pad_token="<pad>"': 'token="[redacted]", pad_token="<pad>"',
        "https://a.example/b?x=1&token=moon&y=2#z": "https://a.example/b?x=1&token=[redacted]&y=2#z",
        "Authorization: Bearer moon": "Authorization: [redacted]",
        "https://ada:moon@a.example/b": "https://[redacted]@a.example/b",
        "git+ssh://git@a.example/b": "git+ssh://git@a.example/b",
        "num_tokens=512, lr: 0.5": "num_tokens=512, lr: 0.5",
    }
    more: dict[str, Any] = {f"text_{n}": text for n, text in enumerate(strings)}
    more |= {"api_key": "", "password": 7, "hub_token": None, "secret": {"a": "b"}}
    callback, told = heard(case)
    _train(case, callback, {"loss": 0.5}, args=case.arguments(more=more))
    found = told.calls("log_parameters")[0]["parameters"]
    for number, (text, expected) in enumerate(strings.items()):
        shown = found[f"text_{number}"]
        require(shown == expected, f"of {text!r} it was told {shown!r} and not {expected!r}")
    kept = {name: found[name] for name in ("api_key", "password", "hub_token", "secret")}
    require(
        kept == {"api_key": "", "password": 7, "hub_token": None, "secret": {"a": "b"}},
        f"what is no string was redacted: {kept}",
    )


@rule(
    "TRK-025",
    since=(1, 1),
    needs=["tracking"],
    why="What a wrong entry in the logs raised inside a callback ended the training: "
    "huggingface/transformers#27608.",
    mend="Let TrackerCallback catch what its events raise.",
)
def an_error_of_its_own_is_said_once_and_costs_nothing(case: Case) -> None:
    """An error inside an event is logged once, with the event's name, and what follows is sent."""
    callback, told = heard(case)
    training = case.training(callback)
    with said() as lines:
        training.begin()
        training.step({"loss": 0.5})
        for _ in range(2):
            training.call(callback, "on_log", {"logs": _Unreadable(), "model": None})
        training.step({"loss": 0.25})
        training.end()
    require(told.points() == [(1, 0.5), (2, 0.25)], f"the tracker has {told.points()}")
    named = [line for line in lines if "on_log" in line]
    require(len(named) == 1, f"of two errors in on_log it said {lines}")


class _Unreadable(dict[str, Any]):
    """Logs that cannot be read."""

    def items(self) -> Any:
        """Refuse."""
        raise RuntimeError("device-side assert")


@rule(
    "TRK-026",
    since=(1, 1),
    needs=["tracking"],
    why="A store that is slow, and not away, lost the end of each training: clearml/clearml#766.",
    mend="Let the end wait to flush_limit; TrackerCallback does.",
)
def the_end_waits_for_one_that_is_slow(case: Case) -> None:
    """Where a tracker is slow, the end waits until it has all, and no longer."""
    callback, told = heard(case, fails={"log_metrics": {"seconds": 0.3}, "close": {"seconds": 0.3}})
    callback.flush_limit = 15.0
    with said() as lines:
        _train(case, callback, *_losses(0.5, 0.25))
    ended = time()
    require(told.points() == [(1, 0.5), (2, 0.25)], f"at the end, it had {told.points()}")
    require(told.status == ["finished"], f"at the end, it was closed as {told.status}")
    require(not lines, f"it said {lines}")
    late = ended - told.calls("close")[0]["ended"]
    require(late < 1.0, f"the end waited {late:.1f} s more than it had to")


@rule(
    "TRK-027",
    since=(1, 1),
    needs=["tracking"],
    why="An argument that cannot be written down kept a training from being tracked at all: "
    "huggingface/transformers#30038.",
    mend="Say parameters_of, and leave the rest to TrackerCallback.",
)
def arguments_that_cannot_be_read_cost_only_themselves(case: Case) -> None:
    """Arguments or a configuration that cannot say themselves are named; all else is sent."""
    callback, told = heard(case)
    training = case.training(callback)
    training.model.config = _Mute()
    with said() as lines:
        training.begin()
        training.step({"loss": 0.5})
        training.end()
    require(told.points() == [(1, 0.5)], f"the tracker has {told.points()}")
    require(any("_Mute" in line for line in lines), f"it said {lines}")
    sent = told.calls("log_parameters")[0]["parameters"]
    require(sent.get("learning_rate") == 0.125, f"the arguments are {sent}")


class _Mute(Config):
    """A configuration that cannot say itself."""

    def to_dict(self) -> dict[str, Any]:
        """Refuse."""
        raise RuntimeError("no configuration")
