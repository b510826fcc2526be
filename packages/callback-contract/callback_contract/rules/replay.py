"""Replay: what a tracker has not got is delivered later, by a command that says what came of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._ending import deliveries
from callback_contract._heard import HANGS, Told, heard, losses, trained
from callback_contract._killed import begin_anew, killed
from callback_contract._python import environment
from callback_contract._rule import require, rule
from callback_contract._stored import in_time, said
from callback_contract._terminal import counts, watched
from callback_contract._watching import silence
from callback_core.tracking import replay

LOSSES = (0.125, 0.25, 0.375)

_BY_HAND: Final = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job of the background ignores
runpy.run_module("callback_core.tracking.replay", run_name="__main__")
"""


def _ran(output_dir: Path, *arguments: str) -> tuple[int, str]:
    """Run the command, and return its exit code and what it printed."""
    with silence() as (output, error):
        try:
            code = replay.main([str(output_dir), *arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return code, output.getvalue() + error.getvalue()


def _pending(case: Case, named: str = "heard", *, ends: bool = True, **options: Any) -> Told:
    """Train with a service that is not there, and return what it will have been told.

    It is there once a file beside that of what it was told is.
    """
    there = case.output_dir.parent / f"{named} is there"
    how = {"error": "ConnectionError", "until": str(there)}
    callback, told = heard(case, named, fails={"open": how}, **options)
    callback.flush_limit = 0.0
    training = case.training(callback)
    training.begin()
    for loss in LOSSES:
        training.step({"loss": loss})
    training.end() if ends else _left_behind(case, training)
    return told


def _left_behind(case: Case, training: Any) -> None:
    """Leave in the output directory what a kill does, and end the training elsewhere."""
    left = case.output_dir.parent / "left"
    shutil.copytree(case.output_dir, left)
    training.end()
    case.output_dir.rename(case.output_dir.parent / "ended")  # a thread may still write in there
    left.rename(case.output_dir)
    for lock in case.output_dir.rglob("*.lock"):
        lock.unlink()


def _run_of(case: Case) -> str:
    return next(case.output_dir.glob("tracking/*")).name


def _is_there(case: Case, named: str = "heard") -> None:
    """Let the service be there, once none of the trainings' own deliveries is in a call of it."""
    in_time(lambda: not deliveries())
    (case.output_dir.parent / f"{named} is there").touch()


def _has_all(told: Told) -> bool:
    return told.points() == [*enumerate(LOSSES, 1)]


def _leaves_alone(case: Case, told: Told) -> str:
    """Require that the command, called once more, sends nothing, and return what it printed."""
    before = len(told.calls())
    code, text = _ran(case.output_dir)
    require(code == 0 and len(told.calls()) == before, f"again, it returned {code}: {text}")
    return text


@rule(
    "RPL-001",
    since=(1, 1),
    needs=["tracking"],
    why="What was logged without a connection is lost completely where nothing delivers it: "
    "comet-ml/issue-tracking#463.",
    mend="Let Tracker.settings return what makes the tracker again; leave the rest.",
)
def delivers_what_is_pending_and_says_how_much(case: Case) -> None:
    """The command delivers what is pending, closes the run, says how many points, and returns 0.

    Called once more, it says that there is nothing to deliver, and sends nothing.
    """
    told = _pending(case)
    _fails_so(case.output_dir, "heard", {"log_metrics": {"seconds": 0.2}})  # it is slow
    code, text = _ran(case.output_dir)
    require(code == 0 and _has_all(told), f"it returned {code}, and sent {told.points()}: {text}")
    title = f"{_run_of(case)} to heard"
    line = f"{title}: 6 points delivered, 0 names cut or left out, 0 points failed; closed as "
    line += "finished."
    require(line in text, f"it printed {text!r}")
    text = _leaves_alone(case, told)
    require(f"{title}: has everything already." in text, f"again, it printed {text!r}")


@rule(
    "RPL-002",
    since=(1, 1),
    needs=["tracking"],
    why="A job that was killed said nothing of its end, and its run shows as running for ever: "
    "huggingface/transformers#30333.",
    mend="Leave it to the command to close what nobody has ended.",
)
def closes_a_run_that_was_killed_as_failed(case: Case) -> None:
    """A run whose training was killed is delivered to its last record, and closed as failed.

    So is one of which all was sent already, or all but a checkpoint: in the run that it has. One
    that has ended otherwise, of which only that was not sent, is closed as it ended. Called once
    more, the command leaves the run alone.
    """
    told = _pending(case, ends=False)
    _is_there(case)
    code, text = _ran(case.output_dir)
    require(code == 0 and _has_all(told), f"it returned {code}, and sent {told.points()}: {text}")
    require(told.status == ["failed"] and "closed as failed" in text, f"it printed {text!r}")
    _leaves_alone(case, told)
    away = {"log_files": {"error": "ConnectionError", "times": 99}}
    for name, fails in (("all", None), ("files", away)):
        begin_anew(case)
        left, _, told = killed(case, LOSSES, 3, named=name, checkpoints=True, fails=fails)
        run = told.calls("log_metrics")[0]["run"]
        _fails_so(left, name, None)
        code, text = _ran(left)
        require(code == 0 and _has_all(told), f"it returned {code}: {text!r}")
        require(told.status == ["failed"], f"what was sent and not closed is {told.status}")
        of_run = {call["run"] for call in told.calls("log_files", "close")}
        require(of_run == {run}, f"it was closed and sent files in {of_run}, and not in {run}")
        files = [call["name"] for call in told.calls("log_files")]
        require(files == ["checkpoint-3"], f"the checkpoints that it was sent are {files}")
    begin_anew(case)
    callback, told = heard(case, "end", fails={"close": {"error": "ConnectionError", "times": 99}})
    callback.flush_limit = 0.1
    trained(case, callback, *losses(*LOSSES))
    _fails_so(case.output_dir, "end", None)
    code, text = _ran(case.output_dir)
    require(code == 0 and _has_all(told), f"it returned {code}: {text!r}")
    require(told.status == ["finished"], f"what had all but its end is closed {told.status}")


def _fails_so(output_dir: Path, named: str, how: Mapping[str, Any] | None) -> None:
    """Have the tracker that the command makes fail so, or not at all."""
    for file in output_dir.glob(f"tracking/*/{named}.tracker.json"):
        kept = json.loads(file.read_text())
        kept["settings"]["fails"] = how
        file.write_text(json.dumps(kept))


@rule(
    "RPL-003",
    since=(1, 1),
    needs=["tracking"],
    why="A script that delivers at night has to know whether it did: a command that returns 0 "
    "where it failed is looked at when the data is gone.",
    mend="Leave the exit code to the command.",
)
def says_why_it_could_not_deliver(case: Case) -> None:
    """Where the service is still away, it gives up after its patience, says why, and returns 1.

    What it has not sent is pending as before.
    """
    told = _pending(case)
    code, text = _ran(case.output_dir, "--patience", "1")
    require(code == 1, f"with no service it returned {code}")
    require("0 points delivered" in text and "6 points failed" in text, f"it printed {text!r}")
    require("failed: ConnectionError: open is to fail" in text, f"it printed {text!r}")
    require("closed as None" in text and not told.points(), f"it printed {text!r}")
    _is_there(case)
    code, text = _ran(case.output_dir)
    require(code == 0 and _has_all(told), f"then it returned {code}: {text!r}")


@rule(
    "RPL-004",
    since=(1, 1),
    needs=["tracking"],
    why="A path that is misspelt looked like a run that was delivered.",
    mend="Leave the exit code to the command.",
)
def says_that_there_is_no_such_run(case: Case) -> None:
    """Where there is no run, or none of that name, it says so and returns 2."""
    code, text = _ran(case.output_dir)
    require(code == 2 and "There is no run in" in text, f"it returned {code}: {text!r}")
    _pending(case)
    code, text = _ran(case.output_dir, "--run", "other")
    require(code == 2 and "no run 'other'" in text, f"it returned {code}: {text!r}")
    for file in case.output_dir.glob("tracking/*/*.tracker.json"):
        file.unlink()
    code, text = _ran(case.output_dir)
    unknown = f"{_run_of(case)} knows no tracker: say with --to" in text
    require(code == 1 and unknown, f"of a run without a tracker it returned {code}: {text!r}")


@rule(
    "RPL-005",
    since=(1, 1),
    needs=["tracking"],
    why="Of many runs, one is wanted now; and of two services, one is back.",
    mend="Leave --run and --to to the command.",
)
def delivers_one_run_to_one_tracker_where_asked(case: Case) -> None:
    """With `--run` only that run is delivered, and with `--to` to that tracker only; else all."""
    first = _pending(case)
    run = _run_of(case)
    others = case.output_dir.parent / "others"
    second, third = _pending(case, "second"), _pending(case, "third")
    for name in ("heard", "second", "third"):
        _is_there(case, name)
    runs = sorted(path.name for path in case.output_dir.glob("tracking/*"))
    require(len(runs) == 3 and not others.exists(), f"three trainings are the runs {runs}")
    code, text = _ran(case.output_dir, "--run", run)
    require(code == 0 and _has_all(first), f"with --run it returned {code}: {text!r}")
    require(not second.calls("open") and not third.calls("open"), "with --run, it sent others too")
    code, text = _ran(case.output_dir, "--run", runs[1], "--to", "second")
    require(code == 0 and _has_all(second), f"with --to it returned {code}: {text!r}")
    code, text = _ran(case.output_dir)
    require(code == 0 and _has_all(third), f"without both it returned {code}: {text!r}")
    require(len(text.splitlines()) >= 3, f"of three runs it printed {text!r}")


@rule(
    "RPL-006",
    since=(1, 1),
    needs=["tracking"],
    why="A name that no package has, or a tracker that was bound to its process, must be told from "
    "a service that is away.",
    mend="Return None from Tracker.settings where the tracker cannot be made again.",
)
def says_which_tracker_cannot_be_made(case: Case) -> None:
    """A tracker that cannot be made again, or that no package has, is named, and it returns 1.

    Other trackers are delivered to all the same.
    """
    told = _pending(case)
    _is_there(case)
    code, text = _ran(case.output_dir, "--to", "nobody")
    named = "to nobody: cannot be delivered: " in text and "'nobody'" in text
    require(code == 1 and named, f"to nobody, it returned {code}: {text!r}")
    folder = next(case.output_dir.glob("tracking/*"))
    made = {"made_by": "nowhere:Nothing", "settings": {}}
    (folder / "gone.tracker.json").write_text(json.dumps(made))
    code, text = _ran(case.output_dir)
    named = "to gone: cannot be delivered: nowhere:Nothing is not to be found here" in text
    require(code == 1 and named, f"to one that is gone, it returned {code}: {text!r}")
    require(_has_all(told), f"the other one was sent {told.points()}")
    bound = {"made_by": "json:JSONDecoder", "settings": None}
    (folder / "gone.tracker.json").write_text(json.dumps(bound))
    code, text = _ran(case.output_dir, "--to", "gone")
    require(code == 1 and "cannot be delivered" in text, f"it returned {code}: {text!r}")
    shutil.rmtree(folder)
    callback, _ = heard(case, "bound", bound=True, fails={"open": {"error": "ConnectionError"}})
    callback.flush_limit = 0.0
    case.training(callback).run()
    kept = json.loads(next(case.output_dir.glob("tracking/*/bound.tracker.json")).read_text())
    require(kept["settings"] is None, f"of one that is bound, it keeps {kept}")


@rule(
    "RPL-007",
    since=(1, 1),
    needs=["tracking"],
    why="Two that deliver one run send each point twice: ray-project/ray#29916.",
    mend="Leave the locks to TrackerCallback and the command.",
)
def leaves_a_training_that_runs_alone(case: Case) -> None:
    """Where the training is still running, the command sends nothing, says so, and returns 1."""
    there = case.output_dir.parent / "heard is there"
    how = {"error": "ConnectionError", "until": str(there)}
    callback, told = heard(case, fails={"open": how})
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.125})
    code, text = _ran(case.output_dir)
    require(code == 1 and "still running" in text, f"it returned {code}: {text!r}")
    there.touch()
    training.end()
    require(told.points() == [(1, 0.125)], f"the tracker has {told.points()}")
    require(told.status == ["finished"], f"it was closed as {told.status}")


@rule(
    "RPL-008",
    since=(1, 1),
    needs=["tracking"],
    why="What was left out later is as little known as what was left out at once: "
    "huggingface/transformers#4883.",
    mend="Leave the report to the command.",
)
def says_what_was_left_out(case: Case) -> None:
    """What is cut or left out is listed, each with the reason, and counts as delivered."""
    told = _pending(case, limits={"parameter_length": 4})
    _is_there(case)
    code, text = _ran(case.output_dir)
    count = text.count(": cut to 4 characters")
    require(code == 0 and count > 2, f"it returned {code}: {text!r}")
    require(f"{count} names cut or left out" in text, f"of {count} it printed {text!r}")
    require("  run_name: cut to 4 characters" in text, f"it printed {text!r}")
    require(_has_all(told), f"the tracker has {told.points()}")


@rule(
    "RPL-009",
    since=(1, 1),
    needs=["tracking"],
    why="A large run is delivered for hours; what was sent when somebody stopped it, or the "
    "service went away, need not be sent again.",
    mend="Leave the progress to TrackerCallback and the command.",
)
def goes_on_where_it_came_to(case: Case) -> None:
    """A delivery that breaks off goes on where it came to: in the same run, and nothing twice.

    One that is stopped by Ctrl-C ends with 130, and can go on, too.
    """
    first = _pending(case, limits={"batch_size": 2, "retry_after": 1.0})
    path = case.output_dir.parent / "heard is there"
    broken = {"error": "ConnectionError", "times": 99, "point": "train/loss"}
    _fails_so(case.output_dir, "heard", {"log_metrics": broken})
    code, text = _ran(case.output_dir, "--patience", "1")
    require(code == 1, f"with points that fail it returned {code}: {text!r}")
    opened = first.calls("open")[0]
    _fails_so(case.output_dir, "heard", None)
    code, text = _ran(case.output_dir)
    require(code == 0 and _has_all(first), f"it returned {code}, and sent {first.points()}: {text}")
    again = first.calls("open")[-1]["run_id"]
    require(opened["run_id"] is None and again, "the run that was opened is not gone on with")
    require(len(first.calls("log_parameters")) == 1, "parameters were sent twice")
    second = _pending(case, "second", limits={"batch_size": 2})
    hangs = {"log_metrics": {"seconds": 8 * HANGS, "until": str(path)}}
    _fails_so(case.output_dir, "second", hangs)
    running = subprocess.Popen(
        [sys.executable, "-c", _BY_HAND, str(case.output_dir)],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    in_time(lambda: second.calls("log_parameters"))
    running.send_signal(signal.SIGINT)
    code = running.wait(4 * HANGS)
    require(code == 130, f"by Ctrl-C, it ended with {code}")
    path.touch()
    code, text = _ran(case.output_dir)
    require(code == 0 and _has_all(second), f"after Ctrl-C it returned {code}: {text!r}")


@rule(
    "RPL-010",
    since=(1, 1),
    needs=["tracking"],
    why="A service that hangs holds a command that waits for it for ever.",
    mend="Leave --patience to the command.",
)
def gives_up_where_the_service_hangs(case: Case) -> None:
    """Where a call hangs beyond its patience, it gives up, names the call, and returns 1."""
    told = _pending(case)
    back = case.output_dir.parent / "back"
    _fails_so(case.output_dir, "heard", {"log_metrics": {"seconds": 4 * HANGS, "until": str(back)}})
    with said():
        done: list[tuple[int, str]] = []
        thread = threading.Thread(
            target=lambda: done.append((replay.main(
                [str(case.output_dir), "--patience", "1"]), "")),
            daemon=True,
        )  # fmt: skip
        with silence() as (output, error):
            thread.start()
            thread.join(2 * HANGS)
        hung = thread.is_alive()
    back.touch()
    thread.join(2 * HANGS)
    require(not hung, "it did not come to an end")
    text = output.getvalue() + error.getvalue()
    require(done and done[0][0] == 1, f"it returned {done}")
    require("log_metrics has not come back for" in text, f"it printed {text!r} {told.status}")
    sys.stdout.flush()


@rule(
    "RPL-011",
    since=(1, 1),
    needs=["tracking"],
    why="What is evaluated after the end belongs to the run, and must not cost what it has: "
    "comet-ml/issue-tracking#536.",
    mend="Rewind in open where opening.rewind_to says so, and only there.",
)
def delivers_what_was_logged_after_the_end(case: Case) -> None:
    """What was logged after the end is delivered behind it, and nothing is forgotten for it."""
    there = case.output_dir.parent / "there"
    fails = {"log_metrics": {"error": "ConnectionError", "until": str(there)}}
    callback, told = heard(case, rewinds=True, fails=fails)
    callback.flush_limit = 0.0
    training = case.training(callback)
    training.begin()
    for loss in LOSSES:
        training.step({"loss": loss})
    in_time(lambda: told.calls("log_metrics", failed=True))
    training.end()
    training.evaluate({"eval_late": 0.5})
    there.touch()
    code, text = _ran(case.output_dir)
    late = told.points("eval/late")
    require(code == 0 and _has_all(told) and late == [(3, 0.5)], f"it sent {late}: {text!r}")
    forgets = [call["rewind_to"] for call in told.calls("open")]
    require(forgets[-1] is None, f"it was told to forget from {forgets} on, each time")
    require(told.status[-2:] == ["finished"] * 2, f"it was closed {told.status}")


@rule(
    "RPL-012",
    since=(1, 1),
    needs=["tracking"],
    why="A command that says nothing for an hour is stopped by whoever waits for it.",
    mend="Leave the bar to the command.",
)
def shows_how_far_it_is(case: Case) -> None:
    """In a terminal, a bar goes from no point to all that are pending."""
    told = _pending(case, limits={"batch_size": 1})
    _fails_so(case.output_dir, "heard", {"log_metrics": {"seconds": 0.06}})  # to see it move
    with watched() as (_, error):
        code = replay.main([str(case.output_dir)])
    drawn = counts(error.getvalue())
    require(code == 0 and _has_all(told), f"it returned {code}, and sent {told.points()}")
    rising = drawn == sorted(drawn) and {total for _, total in drawn} == {6}
    require(rising and drawn[-1:] == [(6, 6)], f"of six points, the bar was at {drawn}")
