"""Trackers: what a `Tracker` is told, in which order, from where and how often."""

from __future__ import annotations

import json
import math
import threading
from time import time
from typing import Any

from callback_contract._case import Case, Config
from callback_contract._heard import (
    HANGS,
    IN_THE_TRAININGS_THREAD,
    Heard,
    after_a_step,
    heard,
    losses,
    opens,
    trained,
)
from callback_contract._killed import again, begin_anew, goes_on, killed
from callback_contract._rule import ContractViolation, require, rule
from callback_contract._stored import comes_true, in_time, said
from callback_core import TrainerState
from callback_core.tracking import Limits, Tracker, TrackerCallback


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
    training.model.config = Config(rope={"theta": 10.5, "scaling": {}})
    training.begin()
    training.fire("on_epoch_begin")
    opened = comes_true(case, lambda: "log_parameters" in told.names)
    for logs in ({"loss": 0.5, "note": "a"}, {"loss": 0.25}, {"train_loss": 0.5}):
        training.step(logs)
    training.end()
    require(opened, "when the first epoch began, the run was not opened")
    parameters = told.calls("log_parameters")[0]["parameters"]
    rope = {name: value for name, value in parameters.items() if name.startswith("rope")}
    require(rope == {"rope.theta": 10.5, "rope.scaling": {}}, f"of nested ones it was told {rope}")
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
    back = case.output_dir.parent / "back"
    callback, told = heard(case, fails={"log_metrics": {"seconds": HANGS, "until": str(back)}})
    callback.delivery = "thread"
    training = case.training(callback)
    training.begin()
    while training.state.global_step < 5 and not told.calls("log_metrics"):
        training.step({"loss": 0.5})
    waited = told.calls("log_metrics")
    back.touch()
    training.end()
    by = {c["call"]: c["thread"] for c in told.calls()}
    here = threading.current_thread().name
    ours = {by.pop(call, None) for call in IN_THE_TRAININGS_THREAD}
    delivering = {*by.values()}
    require(len(delivering) == 1 and here not in delivering, f"the calls came from {by}")
    require(ours == {here}, f"adopt, begin and release came from {ours}")
    require(not waited, "a log waited until a call of the tracker had come back")


@rule(
    "TRK-003",
    since=(1, 1),
    needs=["tracking"],
    why="A context of the training's thread is all that some stores know, as Flyte's; and tests "
    "want a point to be there when it is logged.",
    mend="Leave delivery='inline' to TrackerCallback.",
)
def inline_delivers_in_the_trainings_thread(case: Case) -> None:
    """With `delivery="inline"`, the training's thread calls, and all is there at once."""
    fails = {"log_metrics": {"error": "ConnectionError", "times": 1}}
    callback, told = heard(case, fails=fails, limits={"retry_after": 1.0}, checkpoints=True)
    callback.delivery = "inline"
    training = case.training(callback)
    training.begin()
    for step in (1, 2, 3):
        training.step({"loss": step / 8})
    require(not told.points(), "what has just failed is tried again at once, at each log")
    in_time(lambda: after_a_step(training) and told.points())
    found = told.points()
    training.step({"loss": 0.75})
    there = told.points()
    training.save()
    files = told.calls("log_files")
    training.end()
    threads = {call["thread"] for call in told.calls()}
    require(threads == {threading.current_thread().name}, f"the calls came from {threads}")
    require(found == [(1, 0.125), (2, 0.25), (3, 0.375)], f"after a failure there was {found}")
    require(there[-1][1] == 0.75, f"when on_log had returned, there was {there}")
    require(len(files) == 1, f"when on_save had returned, these files were there: {files}")


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
    late = case.output_dir.parent / "late"
    callback, told = heard(case, fails=opens(late), limits={"batch_size": 4})
    callback.delivery = "thread"
    trained(case, callback, *losses(*(step / 8 for step in range(1, 11))), late=late)
    sizes = [len(call["points"]) for call in told.calls("log_metrics")]
    require(max(sizes) == 4 and len(sizes) <= 8, f"20 points were sent in calls of {sizes}")
    expected = [(step, step / 8) for step in range(1, 11)]
    require(told.points() == expected, f"they came as {told.points()}")
    callback, told = heard(case, "large", limits={"batch_size": 4})
    trained(case, callback, {f"value_{n}": n / 8 for n in range(10)})
    sizes = [len(call["points"]) for call in told.calls("log_metrics")]
    require(sizes == [4, 4, 3], f"11 points of one log were sent in calls of {sizes}")


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
    late = case.output_dir.parent / "late"
    callback, told = heard(case, fails=opens(late))
    callback.delivery = "thread"
    before = time()
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5, "note": "a"})
    training.step({"loss": 0.25})
    training.log({"loss": 0.125})
    logged = time()
    late.touch()
    training.end()
    points = [
        point for call in told.calls() for point in call["points"] if point[0] != "train/epoch"
    ]
    found = [(name, step, epoch) for name, _, step, _, epoch in points]
    expected = [("train/loss", 1, 0.5), ("train/note", 1, 0.5), ("train/loss", 2, 1.0)]
    expected += [("train/loss", 2, 1.0)]  # logged twice at the step, which has one epoch
    require(sorted(found) == sorted(expected), f"the points are {found}")
    require(all(before <= point[3] <= logged for point in points), "a point has another time")
    epochs = told.points("train/epoch")
    require(epochs == [(1, 0.5), (2, 1.0)], f"the epochs are {epochs}")


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
    "TRK-027",
    since=(1, 1),
    needs=["tracking"],
    why="An argument that cannot be written down kept a training from being tracked at all: "
    "huggingface/transformers#30038.",
    mend="Say parameters_of, and leave the rest to TrackerCallback.",
)
def arguments_that_cannot_be_read_cost_only_themselves(case: Case) -> None:
    """Arguments or a configuration that cannot say themselves are named; all else is sent.

    So is one that holds itself. Of one with a key that is no name, all but that is sent.
    """
    endless: dict[str, Any] = {}
    endless["itself"] = endless
    for config, named in ((_Mute(), True), (Config(**endless), True), (_Numbered(), False)):
        callback, told = heard(case, type(config).__name__)
        training = case.training(callback)
        training.model.config = config
        with said() as lines:
            training.begin()
            training.step({"loss": 0.5})
            training.end()
        kind = type(config).__name__
        require(told.points() == [(1, 0.5)], f"with {kind}, the tracker has {told.points()}")
        require(any(kind in line for line in lines) is named, f"with {kind}, it said {lines}")
        sent = told.calls("log_parameters")[0]["parameters"]
        require(sent.get("learning_rate") == 0.125, f"with {kind}, the arguments are {sent}")
        require(named or sent.get("hidden_size") == 8, f"with {kind}, the parameters are {sent}")


class _Mute(Config):
    """A configuration that cannot say itself."""

    def to_dict(self) -> dict[str, Any]:
        """Refuse."""
        raise RuntimeError("no configuration")


class _Numbered(Config):
    """A configuration with a key that is no name."""

    def to_dict(self) -> dict[Any, Any]:
        """Return it."""
        return {"hidden_size": 8, (1, 2): 3}


@rule(
    "TRK-040",
    since=(1, 1),
    needs=["tracking"],
    why="What all processes warn of stands in the output once for each GPU: open-mmlab/mmcv#1809.",
    mend="Do nothing where state.is_world_process_zero is False; TrackerCallback does.",
)
def another_process_is_silent(case: Case) -> None:
    """In another process than the main one, nothing is recorded, asked of the tracker, or said."""
    callback, told = heard(case, checkpoints=True)
    state = TrainerState(epoch=0.0, max_steps=4, is_world_process_zero=False)
    training = case.training(callback, state=state)
    with said() as lines:
        training.begin()
        training.fire("on_epoch_begin")
        training.step({"loss": 0.5})
        training.save()
        training.evaluate({"eval_loss": 0.5})
        training.end()
    calls = [call["call"] for call in told.calls()]
    require(not calls, f"the tracker was asked {calls}")
    require(not lines, f"it said {lines}")
    require(not [*case.output_dir.glob("tracking/*")], "something is recorded")


@rule(
    "TRK-047",
    since=(1, 1),
    needs=["tracking"],
    why="Most stores have points and parameters, and no more: who writes a tracker for one should "
    "not have to say what it has not.",
    mend="Leave to Tracker what the store has nothing of its own for.",
)
def what_a_tracker_does_not_say_is_as_for_most(case: Case) -> None:
    """Of a tracker that says no more than it must, what there is one of is sent as points.

    It is sent neither text nor checkpoints, and made elsewhere without arguments.
    """

    class Least(Heard):
        """Has of its own only what each tracker must have."""

        log_summary = Tracker.log_summary
        settings = Tracker.settings
        takes_checkpoints = Tracker.takes_checkpoints

    callback, told = heard(case)
    callback.tracker = Least(str(told.path))
    callback.tracker.limits = Limits()
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    training.save()
    training.log({"train_runtime": 0.25, "note": "a"})
    training.end()
    found = [call["call"] for call in told.calls() if call["points"]]
    require({*found} == {"log_metrics"}, f"points were sent by {found}")
    require(told.points("train/train_runtime") == [(1, 0.25)], f"it has {told.points()}")
    require(not [*case.output_dir.glob("tracking/*/files")], "checkpoints are kept for it")
    [made] = case.output_dir.glob("tracking/*/*.tracker.json")
    require(json.loads(made.read_text())["settings"] == {}, f"it is made by {made.read_text()}")
    begin_anew(case)
    left, state, told = killed(case, (0.5, 0.25), save_at=1)
    callback = again(case, told)
    del callback.tracker.rewinds  # which is not its own then
    callback.load_state_dict(state)
    goes_on(case, callback, left, 1, 0.125)
    forgets = told.calls("open")[-1]["rewind_to"]
    require(forgets is None, f"one that says nothing of it is told to forget from {forgets} on")
