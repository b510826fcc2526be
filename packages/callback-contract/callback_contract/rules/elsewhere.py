"""Trackers in a process of their own: one that hangs is killed, and it outlives a training."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._heard import HANGS, Heard, heard
from callback_contract._killed import journal_of, records_of, training_in
from callback_contract._rule import ContractViolation, require, rule
from callback_contract._stored import in_time, once, said
from callback_core.tracking import TrackerCallback

_AWAY: Final = {"error": "ConnectionError"}

CALL_LIMIT: Final = 1.0
"""Limit, in seconds, for a call in another process. That process gives up after three times that.

On an idle machine a call of a `Heard` takes a thousandth of it.
"""

_MEND = "Let Tracker.settings return what makes the tracker elsewhere; leave the rest."


def _in_a_process(case: Case, **options: Any) -> Any:
    callback, told = heard(case, **options)
    callback.delivery, callback.flush_limit = "process", 240.0
    return callback, told


@rule(
    "TRK-030",
    since=(1, 1),
    needs=["tracking"],
    why="An SDK that holds the interpreter's lock, or leaks, costs the training whatever thread it "
    "is in.",
    mend=_MEND,
)
def a_process_delivers_all(case: Case) -> None:
    """With `delivery="process"`, another process is told all, and the run is known and closed."""
    callback, told = _in_a_process(case)
    training = case.training(callback)
    with said() as lines:
        training.begin()
        for step in (1, 2, 3):
            training.step({"loss": step / 8})
        in_time(told.points)
        during = callback.state_dict()["run_id"]
        training.end()
    require(told.points() == [(1, 0.125), (2, 0.25), (3, 0.375)], f"it has {told.points()}")
    require(told.status == ["finished"], f"it was closed as {told.status}")
    by = {call["pid"] for call in told.calls("open", "log_metrics", "close")}
    require(os.getpid() not in by and len(by) == 1, "this process has called the tracker")
    run = told.calls("close")[0]["run"]
    ids = during, callback.state_dict()["run_id"]
    require(ids == (run, run), f"the run is {run}, and the state said {ids}")
    require(not lines, f"it said {lines}")


@rule(
    "TRK-031",
    since=(1, 1),
    needs=["tracking"],
    why="ClearML's close() never comes back where its server hangs, and a thread cannot be killed.",
    mend=_MEND,
)
def a_process_that_hangs_is_begun_anew(case: Case) -> None:
    """Where a call hangs beyond `open_limit`, its process is begun anew, and goes on from there.

    Which call it was stands in its log. One that hangs each time is given up.
    """
    back = case.output_dir.parent / "back"
    fails = {"log_metrics": {"seconds": 8 * HANGS, "until": str(back)}}
    callback, told = _in_a_process(case, fails=fails)
    callback.open_limit = 1.0
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.125})
    again = in_time(lambda: len(told.calls("open")) > 1, 2 * HANGS)
    back.touch()
    training.end()
    require(again, "a call that hung was not begun anew")
    require(told.points() == [(1, 0.125)], f"it has {told.points()}")
    require(told.status == ["finished"], f"it was closed as {told.status}")
    runs = {call["run_id"] for call in told.calls("open")[1:]}
    require(runs == {told.calls("log_metrics")[0]["run"]}, f"it was opened again as {runs}")
    log = journal_of(case.output_dir).with_name("heard.log").read_text()
    require("log_metrics has not come back" in log, f"in its log there is {log!r}")
    callback, _ = _in_a_process(case, named="ever", fails={"open": {"seconds": 8 * HANGS}})
    callback.open_limit = 0.05
    with said() as lines:
        case.training(callback).run()
    gave_up = any("(its process ended with 1, see " in line for line in lines)
    require(gave_up, f"of one that hangs each time, it said {lines}")


def _killed_after(train: Callable[[], None]) -> None:
    """Train in a process that is forked from this one, and is then killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        try:
            train()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(child, 0)


@rule(
    "TRK-032",
    since=(1, 1),
    needs=["tracking"],
    why="A job that is killed dies and its run shows as running for ever: "
    "huggingface/transformers#30333.",
    mend=_MEND,
)
def a_process_outlives_a_training_that_is_killed(case: Case) -> None:
    """Where the training is killed, the process delivers the rest, and closes the run as failed.

    It gives up where nothing moves for long, and not where all takes long.
    """
    refused, told_refused = _in_a_process(case, named="away", fails={"log_metrics": _AWAY})
    refused.open_limit = CALL_LIMIT

    def train_in_vain() -> None:
        training = case.training(refused)
        training.begin()
        training.step({"loss": 0.125})
        in_time(lambda: told_refused.calls("log_metrics", failed=True))

    _killed_after(train_in_vain)
    slow = {"log_metrics": {"seconds": 0.3 * CALL_LIMIT}}
    callback, told = _in_a_process(case, fails=slow, limits={"batch_size": 1})
    callback.open_limit = CALL_LIMIT

    def train() -> None:
        training = case.training(callback)
        training.begin()
        training.step({"loss": 0.125})
        in_time(told.points)
        for loss in (0.25, 0.375, 0.5, 0.625, 0.75):
            training.step({"loss": loss})

    _killed_after(train)
    in_time(lambda: told.status)
    require(told.points() == [(n, n / 8) for n in range(1, 7)], f"it has {told.points()}")
    require(told.status == ["failed"], f"it was closed as {told.status}")
    in_vain = told_refused.calls("open")[0]["pid"]
    require(in_time(lambda: not _is_alive(in_vain), 60.0), "where nothing moves, it goes on")


@rule(
    "TRK-033",
    since=(1, 1),
    needs=["tracking"],
    why="15 hours of eight GPUs were lost to a tracker's timeout: radixark/miles#2571.",
    mend=_MEND,
)
def a_process_is_ended_at_the_limit(case: Case) -> None:
    """At `flush_limit`, the process is ended; that is said, with where it has written why."""
    fails = {"open": {"error": "ConnectionError"}}
    callback, told = _in_a_process(case, fails=fails)
    callback.flush_limit = 0.3
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.125})
    in_time(lambda: told.calls("open", failed=True))
    with said() as lines:
        begun = monotonic()
        training.end()
        took = monotonic() - begun
    require(took < HANGS, f"with a flush_limit of 0.3 s the end took {took:.1f} s")
    about = [line for line in lines if "its process did not come to an end, see " in line]
    require(len(about) == 1 and "has not got 2 points" in about[0], f"it said {lines}")
    log = Path(about[0].partition(", see ")[2].partition(".log")[0] + ".log")
    require("open is to fail" in log.read_text(), f"in {log.name} there is {log.read_text()!r}")
    opened = told.calls("open", failed=True)
    in_time(lambda: not _is_alive(opened[0]["pid"]))
    require(not _is_alive(opened[0]["pid"]), "the process is still there")


def _is_alive(pid: int) -> bool:
    """Return whether a process goes on; not where it only waits for its parent to ask after it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(") ")[2].startswith("Z"))


@rule(
    "TRK-034",
    since=(1, 1),
    needs=["tracking"],
    why="That a tracker cannot be made elsewhere was found hours later, by its silence.",
    mend="Return None from Tracker.settings where it cannot be made elsewhere.",
)
def one_that_cannot_be_made_elsewhere_is_refused(case: Case) -> None:
    """A tracker that is bound to this process, or of a local class, is refused, with the reason.

    One that goes on in the user's run is delivered to by a thread, which is said.
    """

    class Local(Heard):
        pass

    for tracker, why in ((Heard("", bound=True), "bound to this process"), (Local(""), "imported")):
        callback = case.make()
        try:
            TrackerCallback.__init__(callback, tracker, delivery="process")
        except ValueError as error:
            named = why in str(error) and type(tracker).__name__ in str(error)
            require(named and "another delivery" in str(error), f"it says {error}")
        else:
            raise ContractViolation(f"a tracker that cannot be made elsewhere is taken: {why}")
    callback = case.make()
    TrackerCallback.__init__(callback, Heard(""), delivery="process")  # which can be made elsewhere
    callback, told = _in_a_process(case, adopts="the user's")
    training = case.training(callback)
    with said() as lines:
        training.begin()
        training.step({"loss": 0.5})
        training.end()
    here = {call["pid"] for call in told.calls()} == {os.getpid()}
    require(here and told.points() == [(1, 0.5)], "a run of the user's was not delivered to here")
    require(any("by a thread" in line for line in lines), f"it said {lines}")


@rule(
    "TRK-039",
    since=(1, 1),
    needs=["tracking"],
    why="Between two logs of a large model there are many minutes, in which nothing may give up.",
    mend=_MEND,
)
def a_process_waits_for_a_training_that_is_slow(case: Case) -> None:
    """A process delivers what a training logs after a silence that is longer than all limits.

    So may an upload be.
    """
    slow = {"log_files": {"seconds": 1.5 * CALL_LIMIT}}
    callback, told = _in_a_process(case, fails=slow, checkpoints=True)
    callback.open_limit = CALL_LIMIT
    training = case.training(callback)
    with said() as lines:
        training.begin()
        training.step({"loss": 0.125})
        training.save()
        in_time(lambda: told.calls("log_files"))
        sleep(3.5 * CALL_LIMIT)  # a silence is no event that could be waited for
        training.step({"loss": 0.25})
        training.end()
    require(told.points() == [(1, 0.125), (2, 0.25)], f"it has {told.points()}")
    require(not lines, f"it said {lines}")
    require(len(told.calls("open")) == 1, "its process was begun anew while it uploaded")


@rule(
    "TRK-043",
    since=(1, 1),
    needs=["tracking"],
    why="What a process of its own leaves out stands in a log that nobody reads.",
    mend=_MEND,
)
def what_a_process_leaves_out_is_named(case: Case) -> None:
    """What a tracker rejects in another process is named at the end of training, in this one."""
    fails = {"log_metrics": {"error": "Rejected", "point": "train/other"}}
    callback, told = _in_a_process(case, fails=fails)
    training = case.training(callback)
    with said() as lines:
        training.begin()
        training.step({"loss": 0.125, "other": 0.5})
        training.end()
    require(told.points() == [(1, 0.125)], f"it has {told.points()}")
    require(any("train/other: rejected: " in line for line in lines), f"it said {lines}")


@rule(
    "TRK-044",
    since=(1, 1),
    needs=["tracking"],
    why="A tracker in a module beside the script is found by the script, and by no other process.",
    mend=_MEND,
)
def a_process_finds_the_modules_of_this_one(case: Case) -> None:
    """A tracker whose module is found by `sys.path` alone is delivered to by another process."""
    beside = case.output_dir.parent / "beside"
    beside.mkdir()
    module = "tracker_beside_the_script"
    (beside / f"{module}.py").write_text(
        "from callback_contract._heard import Heard\n\n\nclass Beside(Heard):\n    pass\n"
    )
    sys.path.insert(0, str(beside))
    try:
        callback, told = _in_a_process(case)
        callback.tracker = import_module(module).Beside(str(told.path))
        training = case.training(callback)
        with said() as lines:
            training.begin()
            training.step({"loss": 0.125})
            training.end()
    finally:
        sys.path.remove(str(beside))
        sys.modules.pop(module, None)
    require(told.points() == [(1, 0.125)], f"it has {told.points()}, and said {lines}")


_FAILURES: Final[Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]] = (
    ("log_metrics", {}, {}),
    ("open", {}, {}),
    ("close", {}, {"rewinds": True}),
    ("log_metrics", {"point": "train/epoch"}, {"rewinds": True, "limits": {"batch_size": 1}}),
)
"""What a service refuses until it is back, of which points, and of which tracker."""


@rule(
    "JRN-023",
    since=(1, 1),
    needs=["tracking"],
    why="A process that still delivers what a killed training has left, and the training that is "
    "resumed meanwhile, send one run (ray-project/ray#29916).",
    mend=_MEND,
)
def two_that_deliver_a_run_that_is_resumed_send_each_point_once(case: Case) -> None:
    """What a process still delivers of a killed training, the resumed one does not send again.

    The process leaves out what the resumed training replaces, has forgotten what it may have sent
    of it, and closes the run as that one ends; or the resumed one goes on where it came to.
    """
    every = [_Resumed(case, *each) for each in _FAILURES]
    for each in every:  # so that their processes begin at once
        _killed_after(each.train)
    for each in every:
        each.resume()


class _Resumed:
    """A training that is killed while its service is away, and is resumed."""

    def __init__(self, case: Case, call: str, how: Mapping[str, Any], options: Any) -> None:
        name = f"{call} of {', '.join((*how, *options)) or 'all'}"
        self.case, self.call = case, call
        self.output_dir = case.output_dir / name
        self.output_dir.mkdir()
        self.back = self.output_dir / "back"
        away = {call: {**_AWAY, **how, "until": str(self.back)}}
        self.killed, self.told = _in_a_process(case, named=name, fails=away, **options)
        self.resumed, _ = heard(case, name, fails=away, **options)

    def train(self) -> None:
        """Train, for the process that is to be killed."""
        training = training_in(self.case, self.killed, self.output_dir)
        training.begin()
        for loss in (0.125, 0.25):
            training.step({"loss": loss})

    def resume(self) -> None:
        """Go on at step 1, and require that all is there once."""
        told = self.told
        in_time(lambda: told.calls(self.call, failed=True))
        self.resumed.delivery, self.resumed.flush_limit = "thread", 120.0
        run = journal_of(self.output_dir).parent.name
        self.resumed.load_state_dict({"run": run, "run_id": None})
        training = training_in(self.case, self.resumed, self.output_dir, 1)
        training.begin()
        training.fire("on_epoch_begin")
        training.step({"loss": 0.5})
        if self.call == "open":  # the process comes to its end before the training does
            self.back.touch()
            in_time(lambda: told.status and not self._others())
        training.step({"loss": 0.625})
        with once(self._has_ended, self.back):
            training.end()
        in_time(lambda: not self._others())
        kept, expected = told.kept(), [(1, 0.125), (2, 0.5), (3, 0.625)]
        require(kept == expected, f"where {self.output_dir.name} was refused, it has {kept}")
        require(told.status[-1:] == ["finished"], f"it was closed as {told.status}")
        require(told.status.count("finished") == 1, f"it was closed as {told.status}")
        runs = {call["run"] for call in told.calls("log_metrics", "close")}
        require(len(runs) == 1, f"the points and the ends are in {len(runs)} runs")

    def _others(self) -> list[int]:
        """Return the processes that have opened it, and go on."""
        pids = {call["pid"] for call in self.told.calls("open")} - {os.getpid()}
        return [pid for pid in pids if _is_alive(pid)]

    def _has_ended(self) -> bool:
        """Return whether it stands in the journal that the training has ended."""
        return bool(records_of(journal_of(self.output_dir))[-1]["kind"] == "end")
