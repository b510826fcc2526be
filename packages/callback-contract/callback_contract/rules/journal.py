"""Journal: what was logged is on disk at once, and stays there until it is delivered."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from callback_contract._case import Case
from callback_contract._heard import Told, heard
from callback_contract._killed import (
    again,
    begin_anew,
    goes_on,
    is_noted,
    journal_of,
    killed,
    records_of,
    training_in,
)
from callback_contract._python import run_python
from callback_contract._rule import require, rule
from callback_contract._stored import in_time, said
from callback_contract._watching import silence
from callback_core.tracking import replay


@rule(
    "JRN-001",
    since=(1, 1),
    needs=["tracking"],
    why="What was logged in the hour before a job was killed was lost with it: "
    "comet-ml/issue-tracking#463.",
    mend="Leave the journal to TrackerCallback.",
)
def what_is_logged_is_on_disk_at_once(case: Case) -> None:
    """When `on_log` returns, the record is in the journal: step, time, epoch and plain values.

    So is the beginning, with the arguments, and the end.
    """
    callback, _ = heard(case, fails={"open": {"error": "ConnectionError"}})
    callback.flush_limit = 0.0
    training = training_in(case, callback, case.output_dir)
    training.begin()
    training.step({"loss": 0.5, "bad": float("nan"), "worse": float("-inf"), "list": [1]})
    records = records_of(journal_of(case.output_dir))
    require([r["kind"] for r in records] == ["begin", "logs"], f"the journal has {records}")
    begin, logs = records
    require(begin["arguments"]["learning_rate"] == 0.125, f"the arguments are {begin}")
    require(begin["model_config"] == {"hidden_size": 8}, f"the configuration is {begin}")
    require((begin["step"], begin["resumed"]) == (0, False), f"it begins with {begin}")
    plain = {"__float__": "NaN"}, {"__float__": "-Infinity"}
    values = {"loss": 0.5, "bad": plain[0], "worse": plain[1], "epoch": 0.5}
    require(logs["logs"] == values, f"the values are {logs['logs']}")
    require((logs["step"], logs["epoch"]) == (1, 0.5), f"the record is {logs}")
    training.step({"note": "a\nb"})
    training.save()
    kinds = [r["kind"] for r in records_of(journal_of(case.output_dir))]
    require(kinds == ["begin", "logs", "logs", "saved"], f"the records are {kinds}")
    training.end(KeyboardInterrupt())
    last = records_of(journal_of(case.output_dir))[-1]
    ended = (last["kind"], last["status"], last["step"])
    require(ended == ("end", "interrupted", 2), f"the last record is {last}")


@rule(
    "JRN-002",
    since=(1, 1),
    needs=["tracking"],
    why="A kill comes in the middle of a write too; a reader that fails at half a line loses all "
    "that came before it.",
    mend="Leave the journal to TrackerCallback.",
)
def half_a_record_is_dropped(case: Case) -> None:
    """Of a journal whose last record is cut off, all before it counts, and so does what follows.

    So it is where that is the first.
    """
    fails = {"open": {"error": "ConnectionError"}}
    left, state, told = killed(case, (0.125, 0.25), save_at=2, fails=fails)
    journal = journal_of(left)
    with journal.open("ab") as file:
        file.write(b'{"kind":"logs","step":3,"logs":{"note":"' + b"z" * 70_000)
    callback = again(case, told)
    callback.load_state_dict(state)
    goes_on(case, callback, left, 2, 0.375, 0.5)
    expected = [(1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5)]
    require(told.points() == expected, f"the tracker has {told.points()}")
    require(b"zzz" not in journal.read_bytes(), "half a record is still in the journal")
    begin_anew(case)
    left, state, told = killed(case, (0.125,), save_at=1, fails=fails)
    journal_of(left).write_bytes(b'{"kind":"beg')
    callback = again(case, told)
    callback.load_state_dict(state)
    goes_on(case, callback, left, 1, 0.25)
    require(told.points() == [(2, 0.25)], f"behind half a record, it has {told.points()}")


@rule(
    "JRN-003",
    since=(1, 1),
    needs=["tracking"],
    why="A disk that fails leaves lines that are none; one of them must not cost the others.",
    mend="Leave the journal to TrackerCallback.",
)
def a_damaged_record_costs_only_itself(case: Case) -> None:
    """A line of the journal that is no record is passed over and named, and all else is sent.

    What a resumed training replaces, it replaces all the same.
    """
    there = case.output_dir.parent / "there"
    fails = {"open": {"error": "ConnectionError", "until": str(there)}}
    left, _, told = killed(case, (0.125, 0.25), save_at=2, fails=fails)
    journal = journal_of(left)
    damaged = (b"\0\0\0\n", b"[1]\n", b'{"kind":"logs","step":2}\n', b'{"kind":"end","step":2}\n',
               b'{"kind":"logs","step":"2","logs":{},"time":1}\n', b"{}\n",
               b'{"kind":"begin","step":2}\n', b'{"kind":"upload","step":2}\n')  # fmt: skip
    with journal.open("ab") as file:
        at = [file.seek(0, 2)]
        for line in damaged:
            file.write(line)
            at.append(file.tell())
        file.write(b'{"kind":"logs","step":3,"time":1.0,"epoch":1.5,"logs":{"loss":0.375}}\n')
    there.touch()
    with silence() as (output, _):
        code = replay.main([str(left)])
    text = output.getvalue()
    expected = [(1, 0.125), (2, 0.25), (3, 0.375)]
    require(told.points() == expected, f"the tracker has {told.points()}: {text}")
    named = [f"byte {byte} of the journal: a damaged line" in text for byte in at[:-1]]
    require(code == 0 and all(named), f"the command returned {code}, and said {text}")
    begin_anew(case)
    left, state, told = killed(
        case, (0.125, 0.25, 0.375), fails={"open": {"error": "ConnectionError"}}
    )
    with journal_of(left).open("ab") as file:
        file.write(damaged[0])
    callback = again(case, told)
    callback.load_state_dict(state)
    goes_on(case, callback, left, 2, 7.0)
    expected = [(1, 0.125), (2, 0.25), (3, 7.0)]
    require(told.points() == expected, f"after it was resumed, the tracker has {told.points()}")


@rule(
    "JRN-010",
    since=(1, 1),
    needs=["tracking"],
    why="Points that were not delivered are forgotten where nobody is reminded of them: "
    "comet-ml/issue-tracking#463.",
    mend="Leave it to TrackerCallback to look for earlier runs.",
)
def an_earlier_run_that_is_not_delivered_is_named(case: Case) -> None:
    """A training says in a line which earlier runs in its output directory are not delivered."""
    _, _, told = killed(case, (0.125,), fails={"open": {"error": "ConnectionError"}})
    with said() as lines:
        goes_on(case, again(case, told), case.output_dir, 0, 0.5)
    (first, _) = sorted(path.name for path in case.output_dir.glob("tracking/*"))
    about = [line for line in lines if "earlier run" in line]
    whole = len(about) == 1 and f"1 earlier run ({first})" in about[0]
    require(whole and "delivers it" in about[0], f"of one earlier run it said {lines}")
    require("callback_core.tracking.replay" in about[0], f"it does not say how: {about}")
    _killed_again(case)
    with said() as lines:
        goes_on(case, again(case, told), case.output_dir, 0, 0.5)
    about = [line for line in lines if "earlier run" in line]
    whole = len(about) == 1 and "2 earlier runs:" in about[0] and "delivers them" in about[0]
    require(whole, f"of two earlier runs it said {lines}")
    both = case.output_dir / "both"
    training = training_in(case, again(case, told), both)
    training.begin()
    training.step({"loss": 0.5})
    with said() as lines:
        goes_on(case, heard(case, "beside")[0], both, 0, 0.5)
    training.end()
    require(not lines, f"of one that is still running it said {lines}")


def _killed_again(case: Case) -> None:
    callback, _ = heard(case, "another", fails={"open": {"error": "ConnectionError"}})
    callback.flush_limit = 0.0
    goes_on(case, callback, case.output_dir, 0, 0.5)


@rule(
    "JRN-011",
    since=(1, 1),
    needs=["tracking"],
    why="An output directory that cannot be written to, as on a full or a read-only disk, is "
    "found at the first checkpoint; the curves until then would tell why.",
    mend="Leave to TrackerCallback where the journal is.",
)
def where_the_directory_cannot_be_written_it_is_kept_elsewhere(case: Case) -> None:
    """Where the output directory takes no journal, it is elsewhere, which is said; all is sent.

    Once it takes one, a training that is resumed is kept there.
    """
    (case.output_dir / "tracking").write_text("a file where the directory is to be")
    callback, told = heard(case)
    with said() as lines:
        goes_on(case, callback, case.output_dir, 0, 0.5)
    require(told.points() == [(1, 0.5)], f"the tracker has {told.points()}")
    _kept_elsewhere(lines)
    begin_anew(case)
    left, state, told = killed(case, (0.125,), save_at=1)
    journal = journal_of(left)
    records = journal.read_bytes()
    journal.unlink()
    journal.mkdir()
    callback = again(case, told)
    callback.load_state_dict(state)
    with said() as lines:
        goes_on(case, callback, left, 1, 0.25)
    _kept_elsewhere(lines)
    journal.rmdir()
    journal.write_bytes(records)
    callback = again(case, told)
    callback.load_state_dict(state)
    with said() as lines:
        goes_on(case, callback, left, 1, 0.375)
    require(callback.state_dict()["run"] == state["run"], f"when it could be, it was not: {lines}")


def _kept_elsewhere(lines: list[str]) -> None:
    """Require that it was said where a journal is kept, and delete that."""
    about = [line for line in lines if "cannot be kept in" in line]
    require(len(about) == 1 and "It is kept in" in about[0], f"it said {lines}")
    shutil.rmtree(Path(about[0].split("It is kept in ")[1].rstrip(".")).parents[1])


_FULL: Final = """
import json, resource, sys
from pathlib import Path
from callback_contract._case import Arguments, Training
from callback_contract._heard import Heard
from callback_core import TrainerState
from callback_core.tracking import replay
from callback_core.tracking import TrackerCallback

import logging
logging.basicConfig(format="%(message)s")
output, heard, _ = sys.argv[1:]
room = Path(output, "room")  # before there is some, the tracker has nothing to write either
fails = {"open": {"seconds": 600.0, "until": str(room)}}
callback = TrackerCallback(Heard(heard, fails=fails), flush_limit=120.0)
training = Training([callback], Arguments(output), TrainerState(epoch=0.0, max_steps=8))
training.begin()
training.step({"loss": 0.125})
journal, = Path(output).glob("tracking/*/journal.jsonl")
whole = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 20, whole[1]))
training.step({"loss": 0.25})
training.step({"loss": 0.375})
print(json.dumps([json.loads(line) for line in journal.read_bytes().splitlines()][-1]))
resource.setrlimit(resource.RLIMIT_FSIZE, whole)
if "again" in output:
    room.touch()
    training.step({"loss": 0.5})
    training.end()
else:

    class Room(logging.Handler):
        def emit(self, record):
            if "could not be written" in record.getMessage():
                resource.setrlimit(resource.RLIMIT_FSIZE, whole)
                room.touch()

    logging.getLogger().addHandler(Room())
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 20, whole[1]))
    training.end()
"""


@rule(
    "JRN-012",
    since=(1, 1),
    needs=["tracking"],
    why="A disk is full for an hour, until somebody deletes something; what is logged meanwhile "
    "need not be lost, and half a record must not be left.",
    mend="Leave the journal to TrackerCallback.",
)
def what_a_full_disk_does_not_take_waits(case: Case) -> None:
    """What the disk does not take waits in memory, and is written in order once it does.

    What never is, is said at the end, and how much; the run is closed all the same.
    """
    whole = [(1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5)]
    ran = _programs(case, _FULL, "again", "full")
    for (name, done, told), expected in zip(ran, (whole, None), strict=True):
        require(done.returncode == 0, f"with a full disk, training failed: {done.stderr[-500:]}")
        require('"logs"' in done.stdout, f"half a record was left: {done.stdout}")
        said_once = done.stderr.count("cannot be written") - done.stderr.count("has come cannot")
        require(said_once == 1 or name == "full", f"it said {said_once} times: {done.stderr}")
        lost = "records could not be written" in done.stderr
        if expected is not None:
            require(told.points() == expected, f"once there was room, it has {told.points()}")
            require(not lost, f"it said that some are lost: {done.stderr}")
        else:
            counted = [line for line in done.stderr.splitlines() if line.startswith("3 records")]
            require(len(counted) == 1, f"it said {done.stderr}")
            closed = told.points(), told.status
            require(closed == ([(1, 0.125)], ["finished"]), f"it has {closed}")


def _programs(
    case: Case, program: str, *names: str
) -> list[tuple[str, subprocess.CompletedProcess[str], Told]]:
    """Run a program under each name at once, and return how each ended and what it has told.

    It is given a folder of that name, the file of a `Heard`, and the name.
    """

    def run(name: str) -> tuple[str, subprocess.CompletedProcess[str], Told]:
        folder = case.output_dir / name
        folder.mkdir()
        told = Told(folder / "told.jsonl")
        return name, run_python("-c", program, str(folder), str(told.path), name), told

    with ThreadPoolExecutor() as threads:
        return list(threads.map(run, names))


_UNENDED: Final = """
import sys
from callback_contract._case import Arguments, Training
from callback_contract._heard import Heard
from callback_core import TrainerState
from callback_core.tracking import replay
from callback_core.tracking import TrackerCallback

output, heard, how = sys.argv[1:]


def training(path, **fails):
    tracker = TrackerCallback(Heard(path, fails=fails), flush_limit=120.0)
    return Training([tracker], Arguments(output), TrainerState(epoch=0.0, max_steps=8))


first = training(heard, open={"seconds": 0.2 * (how == "late")})
first.begin()
first.step({"loss": 0.125})
if how == "late":
    first.end()
    first.evaluate({"eval_late": 0.5})
    del first
    training(heard + " of another").evaluate({"eval_other": 0.25})
elif how != "nothing":
    raise {"KeyboardInterrupt": KeyboardInterrupt, "ValueError": ValueError}[how]
"""


@rule(
    "JRN-013",
    since=(1, 1),
    needs=["tracking"],
    why="transformers' Trainer does not call on_train_end when a training raises, and the run "
    "shows as running for ever (huggingface/transformers#30333, huggingface/transformers#48875).",
    mend="Leave it to TrackerCallback to end what goes on when the interpreter ends.",
)
def a_program_that_ends_closes_its_runs(case: Case) -> None:
    """A program that ends without the end of its training closes the run, by how it ended itself.

    By an error, and without one, as failed; by Ctrl-C as interrupted. All points are sent, and what
    was evaluated after an end.
    """
    ended = {"nothing": "failed", "ValueError": "failed", "KeyboardInterrupt": "interrupted"}
    for name, _, told in _programs(case, _UNENDED, *ended, "late"):
        require(told.points() == [(1, 0.125)], f"after {name} it has {told.points()}")
        if name == "late":
            late = told.points("eval/late")
            require(late == [(1, 0.5)], f"of what was evaluated after the end, it has {late}")
            continue
        require(told.status == [ended[name]], f"after {name} it is {told.status}")
        last = records_of(journal_of(told.path.parent))[-1]
        require(last["kind"] == "end" and last["step"] == 1, f"the journal ends with {last}")


@rule(
    "JRN-014",
    since=(1, 1),
    needs=["tracking"],
    why="A data loader's worker is forked with all that its parent has; one that delivered, or "
    "closed, at its own end wrote into a run that went on (Lightning-AI/pytorch-lightning#12291).",
    mend="Leave forks to TrackerCallback.",
)
def a_forked_process_leaves_the_run_alone(case: Case) -> None:
    """A process that is forked from a training's neither sends, nor writes, nor closes anything."""
    import warnings

    callback, told = heard(case)
    training = training_in(case, callback, case.output_dir)
    training.begin()
    training.step({"loss": 0.125})
    in_time(told.points)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        try:
            training.fire("on_epoch_begin")
            training.fire("on_save", checkpoint_dir=str(case.output_dir))
            training.fire("on_train_end")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    kinds = [record["kind"] for record in records_of(journal_of(case.output_dir))]
    require(kinds == ["begin", "logs"], f"when the other had ended, the journal had {kinds}")
    training.step({"loss": 0.25})
    training.end()
    require(told.points() == [(1, 0.125), (2, 0.25)], f"the tracker has {told.points()}")
    require(told.status == ["finished"], f"it was closed as {told.status}")
    kinds = [record["kind"] for record in records_of(journal_of(case.output_dir))]
    require(kinds == ["begin", "logs", "logs", "end"], f"the journal has {kinds}")


@rule(
    "JRN-017",
    since=(1, 1),
    needs=["tracking"],
    why="A warning for each log about what nobody can change until the training is over buries all "
    "others.",
    mend="Leave the journal to TrackerCallback.",
)
def where_its_progress_cannot_be_noted_it_goes_on(case: Case) -> None:
    """Where it cannot be noted how far a tracker has come, this is said once, and all is sent.

    So it is where it cannot be noted how the tracker is made.
    """
    callback, told = heard(case)
    training = training_in(case, callback, case.output_dir)
    with said() as lines:
        training.begin()
        [run] = case.output_dir.glob("tracking/*")
        (run / "heard.tracker.json.part" / "in the way").mkdir(parents=True)
        training.fire("on_epoch_begin")
        training.step({"loss": 0.125})
        in_time(lambda: is_noted(case.output_dir))
        noted = journal_of(case.output_dir).with_name("heard.progress.json")
        noted.unlink()
        (noted / "in the way").mkdir(parents=True)
        for step in (2, 3, 4):
            training.step({"loss": step / 8})
            in_time(lambda n=step: told.points()[-1:] == [(n, n / 8)])  # type: ignore[misc]
        training.end()
    expected = [(step, step / 8) for step in (1, 2, 3, 4)]
    require(told.points() == expected, f"the tracker has {told.points()}")
    for what in ("How far heard has come cannot be", "How heard can be delivered to later cannot"):
        require(len([line for line in lines if what in line]) == 1, f"it said {lines}")
