"""Trackers: what they cost that fail, reject, hang, or are slow."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from time import monotonic, process_time, time
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._heard import (
    HANGS,
    RETRY_AFTER,
    Told,
    after_a_step,
    heard,
    losses,
    opens,
    trained,
)
from callback_contract._killed import held_elsewhere, journal_of
from callback_contract._rule import require, rule
from callback_contract._stored import in_time, once, said
from callback_contract._watching import silence
from callback_core.tracking import replay

NAMES: Final = ("train/a", "train/b", "train/c")


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
    rejected, late = {"error": "Rejected"}, case.output_dir.parent / "late"
    fails = {"log_metrics": {**rejected, "point": "train/b"}, **opens(late)}
    callback, told = heard(case, fails=fails)
    callback.delivery = "thread"
    logs = [{"a": n / 8, "b": n / 8, "c": n / 8} for n in (1, 2, 3)]
    with said() as lines:
        trained(case, callback, *logs, late=late)
    found = [told.points(name) for name in NAMES]
    require(
        found == [[(1, 0.125), (2, 0.25), (3, 0.375)], [], [(1, 0.125), (2, 0.25), (3, 0.375)]],
        f"of a, b and c, of which b is rejected, the tracker has {found}",
    )
    require(any("train/b: rejected: " in line for line in lines), f"it said {lines}")
    fails = {"log_metrics": {**rejected, "point": "train/b"}}
    callback, told = heard(case, "pairs", fails=fails, limits={"batch_size": 2})
    trained(case, callback, {"a": 0.5, "b": 0.5, "c": 0.5, "d": 0.5})
    found = [told.points(name) for name in (*NAMES, "train/d")]
    require(found == [[(1, 0.5)], [], [(1, 0.5)], [(1, 0.5)]], f"in pairs, it has {found}")
    late.unlink()
    fails = {**opens(late), "log_metrics": {**rejected, "point": "train/b"}}
    callback, told = heard(case, "batches", fails=fails, limits={"batch_size": 8})
    callback.delivery = "thread"
    logs = [{"a": 0.5, "b": 0.5, "c": 0.5}, *losses(*(n / 8 for n in range(16)))]
    trained(case, callback, *logs, late=late)
    calls = len(told.calls("log_metrics"))
    require(calls <= 7 + 5, f"once it was known which, 32 other points came in {calls} calls")
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

    All others are sent, once and in order, without the patience for it again; in pairs, too.
    """
    fails = {"log_metrics": {"error": "RuntimeError", "point": "train/b"}}
    callback, told = heard(case, fails=fails)
    callback.delivery, callback.flush_limit = "thread", 30.0
    logs = [{"a": n / 8, "b": n / 8, "c": n / 8} for n in range(1, 7)]
    with said() as lines:
        trained(case, callback, *logs)
    expected = [(n, n / 8) for n in range(1, 7)]
    found = [told.points(name) for name in NAMES]
    require(found == [expected, [], expected], f"of a, b and c, the tracker has {found}")
    require(any("train/b: failed: RuntimeError" in line for line in lines), f"it said {lines}")
    tried = len(told.calls("log_metrics", failed=True))
    require(4 <= tried <= 30, f"it was tried {tried} times")
    require(told.status == ["finished"], f"it was closed as {told.status}")
    callback, told = heard(case, "again", fails=fails)
    callback.delivery = "thread"
    training = case.training(callback)
    training.begin()
    for step in (1, 2):
        training.step({"a": 0.5, "b": 0.5, "c": 0.5})
        in_time(lambda n=step: len(told.points("train/c")) == n)  # type: ignore[misc]
    training.end()
    with_c = (c for c in told.calls() if ("train/c", 2) in [(p[0], p[2]) for p in c["points"]])
    came = next((call["begun"] for call in with_c), math.inf)
    second = [c for c in told.calls("log_metrics", failed=True) if c["points"][-1][2] == 2]
    tried = sum(call["begun"] < came for call in second)
    require(1 <= tried <= 3, f"when it came a second time, it was tried {tried} times")
    callback, told = heard(case, "epochs", fails=fails)
    trained(case, callback, *logs)
    epochs = [step for step, _ in told.points("train/epoch")]
    require(epochs == [1, 2, 3, 4, 5, 6], f"the epochs were sent at {epochs}")
    callback, told = heard(case, "pairs", fails=fails, limits={"batch_size": 2})
    trained(case, callback, {"a": 0.5, "b": 0.5, "c": 0.5})
    found = [told.points(name) for name in (*NAMES, "train/epoch")]
    require(found == [[(1, 0.5)], [], [(1, 0.5)], [(1, 0.5)]], f"in pairs, it has {found}")
    callback, told = heard(case, "last", fails=fails)
    callback.flush_limit = 0.1
    training = case.training(callback)
    with said() as lines:
        training.begin()
        training.step({"a": 0.5})
        in_time(lambda: told.points("train/a"))
        training.log({"b": 0.5})
        in_time(lambda: len(told.calls("log_metrics", failed=True)) > 1)  # the first is noted
        training.end()
    why = "has not got 1 points (RuntimeError: log_metrics is to fail)"
    require(any(why in line for line in lines), f"of one with nothing behind it said {lines}")


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
        with once(lambda: len(told.calls("log_metrics", failed=True)) >= 9, there):
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
        trained(case, callback, *losses(0.5, 0.25))
    require(told.points() == [(1, 0.5), (2, 0.25)], f"the tracker has {told.points()}")
    require(any("parameters: failed: RuntimeError" in line for line in lines), f"it said {lines}")
    tried = told.calls("log_parameters", failed=True)
    last = told.calls("log_metrics")[-1]["begun"]
    require(len(tried) >= 5 and tried[-1]["begun"] >= last, "they were not tried again at last")
    require(told.status == ["finished"], f"it was closed as {told.status}")
    fails = {"log_parameters": {"error": "RuntimeError", "times": 5}}  # type: ignore[dict-item]
    callback, told = heard(case, "at last", fails=fails)
    with said() as lines:
        trained(case, callback, *losses(0.5, 0.25))
    require(told.calls("log_parameters"), "they were not tried again at last")
    named = [line for line in lines if "did not take all" in line]
    require(not named, f"of parameters that came at last it said {named}")


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

    A later training with the same callback is sent all the same. What was given up is pending.
    """
    back = case.output_dir.parent / "back"
    fails = {"log_metrics": {"seconds": HANGS, "until": str(back), "point": "train/loss"}}
    callback, told = heard(case, fails=fails, limits={"batch_size": 1})
    callback.delivery, callback.flush_limit = "thread", 0.2
    with said() as lines:
        begun = monotonic()
        training = trained(case, callback, *losses(0.5, 0.25))
        took = monotonic() - begun
    require(took > 0.15, f"with a flush_limit of 0.2 s the end took {took:.1f} s")
    require(not told.points(), "the end waited, beyond its limit, until the call came back")
    text = "\n".join(lines)
    named = re.search(
        r"has not got [1-9]\d* points \(log_metrics has not come back for \d+ s\)", text
    )
    require(named and "callback_core.tracking.replay" in text, f"it said {lines}")
    with held_elsewhere(journal_of(case.output_dir).with_name("heard.lock")):
        pass  # so another process can deliver what this one has given up
    later, stuck = case.training(callback), callback.tracker
    callback.flush_limit = 120.0
    later.begin()
    later.step({"later": 0.5})
    later.end()
    require(told.points("train/later") == [(1, 0.5)], "a later training was not sent")
    require(callback.tracker is not stuck, "two threads call a tracker, of which one is in a call")
    before = told.names
    back.touch()
    in_time(told.points)
    training.fire("on_train_end")
    more = told.names[len(before) :]
    require(more == ["log_metrics"], f"when it came back, it was told more: {more}")
    with silence():
        in_time(lambda: replay.main([str(case.output_dir)]) == 0, 30.0)
    missing = {(1, 0.5), (2, 0.25)}.difference(told.points())
    require(not missing, f"what was given up was not sent later: {missing}")


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
    callback, told = heard(case, fails=opens(back))
    callback.delivery, callback.open_limit, callback.flush_limit = "thread", 0.2, 4 * HANGS
    training = case.training(callback)
    with said() as lines:
        training.begin()
        training.step({"loss": 0.5})
        in_time(lambda: after_a_step(training) and "has not opened" in str(lines), HANGS / 2)
        training.step({"loss": 0.5})
        training.end()
        waited = told.calls("open")
    back.touch()
    slow = [line for line in lines if "has not opened its run in 0.2 s" in line]
    require(len(slow) == 1, f"it said {lines}")
    require(not waited, "the end waited until a run that does not open was open")
    require(any("open has not come back" in line for line in lines), f"it said {lines}")


@rule(
    "TRK-020",
    since=(1, 1),
    needs=["tracking"],
    why="The one tracker that is down must not cost the others their points: "
    "Lightning-AI/pytorch-lightning#21294.",
    mend="Leave each tracker its own thread; TrackerCallback does.",
)
def trackers_do_not_wait_for_one_another(case: Case) -> None:
    """Where trackers hang, another of the same training gets all, and the end waits once."""
    back = case.output_dir.parent / "back"
    stuck = {"seconds": 2 * HANGS, "until": str(back)}
    names = [f"number {number}" for number in range(1, 13)]
    hanging = [heard(case, name, fails={"log_metrics": stuck})[0] for name in names]
    good, told = heard(case)
    for callback in (*hanging, good):
        callback.delivery, callback.flush_limit = "thread", 0.5
    good.flush_limit = 120.0
    begun = monotonic()
    _train_all(case, (*hanging, good))
    took = monotonic() - begun
    back.touch()
    require(told.points() == [(1, 0.5), (2, 0.25)], f"the other one has {told.points()}")
    require(told.status == ["finished"], f"the other one was closed as {told.status}")
    require(took < 5.0, f"with twelve that hang, and limits of 0.5 s, the end took {took:.1f} s")


def _train_all(case: Case, callbacks: Sequence[Any]) -> None:
    training = case.training(*callbacks)
    training.begin()
    training.step({"loss": 0.5})
    training.step({"loss": 0.25})
    training.end()


@rule(
    "TRK-026",
    since=(1, 1),
    needs=["tracking"],
    why="A store that is slow, and not away, lost the end of each training: clearml/clearml#766.",
    mend="Let the end wait to flush_limit; TrackerCallback does.",
)
def the_end_waits_for_one_that_is_slow(case: Case) -> None:
    """Where a tracker is slow, the end waits until it has all, and no longer."""
    slow = {name: {"seconds": 0.1} for name in ("log_metrics", "close")}
    callback, told = heard(case, fails=slow)
    callback.flush_limit = 120.0
    with said() as lines:
        trained(case, callback, *losses(0.5, 0.25))
    ended = time()
    require(told.points() == [(1, 0.5), (2, 0.25)], f"at the end, it had {told.points()}")
    require(told.status == ["finished"], f"at the end, it was closed as {told.status}")
    require(not lines, f"it said {lines}")
    late = ended - told.calls("close")[0]["ended"]
    require(late < HANGS, f"the end waited {late:.1f} s more than it had to")


@rule(
    "TRK-035",
    since=(1, 1),
    needs=["tracking"],
    why="Without a key, a training was ended where it began: unslothai/unsloth#1914. One that goes "
    "on need not wait at its end for what it could not have reached.",
    mend="Raise NotConfigured in open; TrackerCallback waits for it no longer, and says so.",
)
def the_end_does_not_wait_for_one_that_is_not_configured(case: Case) -> None:
    """Where nobody has said where to send to, this is named, and the end does not wait.

    A process of its own goes on to ask while the training does: somebody may say it meanwhile.
    """
    callback, _ = heard(case, fails={"open": {"error": "NotConfigured"}})
    callback.flush_limit = 4 * HANGS
    with said() as lines:
        begun = monotonic()
        training = trained(case, callback, *losses(0.5, 0.25))
        took = monotonic() - begun
        training.fire("on_train_end")  # once more than needed
    require(took < HANGS, f"the end waited {took:.1f} s for what nobody has set")
    named = [line for line in lines if "has not got 4 points (NotConfigured: " in line]
    require(len(named) == 1, f"it said {lines}")
    callback, _ = heard(case, "elsewhere", fails={"open": {"error": "NotConfigured"}})
    callback.delivery, callback.flush_limit = "process", 240.0
    with said() as lines:
        begun = monotonic()
        trained(case, callback, *losses(0.5))
        took = monotonic() - begun
    require(took < 120.0, f"the end waited {took:.1f} s for a process with nowhere to send to")
    named = [line for line in lines if "(its process ended with 1, see " in line]
    require(len(named) == 1, f"of a process that has nowhere to send to it said {lines}")
    back = case.output_dir.parent / "back"
    callback, told = heard(
        case, "later", fails={"open": {"error": "NotConfigured", "until": str(back)}}
    )
    callback.delivery, callback.flush_limit = "process", 240.0
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    in_time(lambda: len(_failures(told)) > 2)
    back.touch()
    in_time(told.points)
    training.end()
    require(told.points() == [(1, 0.5)], f"of one that was told later, it has {told.points()}")


@rule(
    "TRK-036",
    since=(1, 1),
    needs=["tracking"],
    why="What is tried without a pause takes a processor from the training, and fills its logs: "
    "SigNoz/signoz#3799.",
    mend="Raise what the SDK raises; TrackerCallback waits between two tries.",
)
def between_two_tries_there_is_a_pause(case: Case) -> None:
    """What fails is tried again after a pause, also while the end of training waits for it.

    The longer it fails, the longer are the pauses; not while the end waits.
    """
    for delivery in ("thread", "inline"):
        callback, told = heard(case, delivery, fails={"open": {"error": "ConnectionError"}})
        callback.delivery, callback.flush_limit = delivery, 1.0
        training = case.training(callback)
        training.begin()
        in_time(lambda: after_a_step(training) and len(_failures(told)) >= 4)  # noqa: B023
        pauses = _pauses(told)
        least = [0.9 * RETRY_AFTER * 2**n for n in range(3)]
        grow = all(pause > wanted for pause, wanted in zip(pauses, least, strict=False))
        require(grow and len(pauses) >= 3, f"by {delivery}, the pauses were {pauses} s")
        begun = process_time()
        with said() as lines:
            training.end()
        worked = process_time() - begun
        require(worked < 0.5, f"by {delivery}, waiting took {worked:.2f} s of a processor")
        why = "(ConnectionError: open is to fail)" in str(lines)
        require(why, f"by {delivery}, it said {lines}")
        pauses = _pauses(told)[len(pauses) :]
        short = [pause for pause in pauses[1:] if pause < 0.9 * RETRY_AFTER]
        require(not short, f"by {delivery}, the pauses at the end were {pauses} s")
        require(len(pauses) >= 3, f"by {delivery}, the pauses at the end were {pauses} s")


def _failures(told: Told) -> list[float]:
    """Return when the run could not be opened."""
    return [call["begun"] for call in told.calls("open", failed=True)]


def _pauses(told: Told) -> list[float]:
    """Return the seconds between two tries to open the run."""
    return [later - earlier for earlier, later in pairwise(_failures(told))]


@rule(
    "TRK-037",
    since=(1, 1),
    needs=["tracking"],
    why="The longer a service is away, the longer are the pauses between two tries; nobody wants "
    "to sit through one when the training is done.",
    mend="Leave delivery='thread' to TrackerCallback.",
)
def the_end_does_not_wait_for_a_pause(case: Case) -> None:
    """A service that is back when training ends is sent all at once, however long the pause is."""
    back = case.output_dir.parent / "back"
    fails = {"open": {"error": "ConnectionError", "until": str(back)}}
    callback, told = heard(case, fails=fails, limits={"retry_after": 8 * HANGS})
    callback.delivery, callback.flush_limit = "thread", 8 * HANGS
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    in_time(lambda: _failures(told))
    back.touch()
    begun = monotonic()
    training.end()
    took = monotonic() - begun
    require(told.points() == [(1, 0.5)], f"at the end, the tracker has {told.points()}")
    require(took < HANGS, f"the end waited {took:.1f} s for a service that is there")


@rule(
    "TRK-042",
    since=(1, 1),
    needs=["tracking"],
    why="While the end waits for one tracker, the others have time to spare: "
    "Lightning-AI/pytorch-lightning#21294.",
    mend="Leave the end to TrackerCallback.",
)
def while_one_is_waited_for_the_others_deliver(case: Case) -> None:
    """While the end waits for one tracker, what another one has not got is sent to it."""
    back = case.output_dir.parent / "back"
    stuck = {"log_metrics": {"seconds": 4 * HANGS, "until": str(back)}}
    away = {"open": {"error": "ConnectionError", "until": str(back)}}
    hanging, _ = heard(case, "hanging", fails=stuck)
    other, told = heard(case, "other", fails=away, limits={"retry_after": 8 * HANGS})
    hanging.delivery = other.delivery = "thread"
    hanging.flush_limit, other.flush_limit = HANGS, 0.0
    training = case.training(hanging, other)
    training.begin()
    training.step({"loss": 0.5})
    in_time(lambda: _failures(told))
    other.tracker._settings["fails"] = None
    with once(told.points, back):
        training.end()
    require(told.points() == [(1, 0.5)], f"the other one has {told.points()}")
