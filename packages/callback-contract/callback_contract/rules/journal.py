"""Journal: what was logged is on disk at once, and a run that is killed goes on without a seam."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from callback_contract._case import Case, Training
from callback_contract._heard import Told, heard
from callback_contract._rule import require, rule
from callback_contract._stored import comes_true, said
from callback_contract._watching import silence
from callback_contract.testing import run_python
from callback_core import TrainerState
from callback_core.tracking import replay

DIED: Final = RuntimeError("CUDA out of memory")


def _journal(output_dir: Path) -> Path:
    """Return the only journal below `output_dir`."""
    found = sorted(output_dir.glob("tracking/*/journal.jsonl"))
    require(len(found) == 1, f"there are {len(found)} journals in {output_dir.name}/tracking")
    return found[0]


def _records(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text("utf-8").splitlines()]


def _training(case: Case, callback: Any, output_dir: Path, step: int = 0, **args: Any) -> Training:
    """Return a training that goes on at `step` in `output_dir`."""
    state = TrainerState(global_step=step, epoch=step / 2, max_steps=8, num_train_epochs=4)
    arguments = case.arguments(**args)
    arguments.output_dir = str(output_dir)
    return case.training(callback, args=arguments, state=state)


def _killed(
    case: Case, losses: Sequence[float], save_at: int = 0, **options: Any
) -> tuple[Path, Any, Told]:
    """Train, and return what a kill leaves: the output directory as it is, and the state saved.

    The training itself is ended afterwards, in the directory that it has.
    """
    callback, told = heard(case, **options)
    training = _training(case, callback, case.output_dir)
    training.begin()
    training.fire("on_epoch_begin")
    state = None
    for step, loss in enumerate(losses, 1):
        training.step({"loss": loss})
        if step == save_at:
            training.save()
            state = json.loads(json.dumps(callback.state_dict()))
    state = state or json.loads(json.dumps(callback.state_dict()))
    if callback.tracker.settings()["fails"] is None:
        comes_true(case, lambda: told.points()[-1:] == [(len(losses), losses[-1])])
        comes_true(case, lambda: _is_noted(case.output_dir))
    left = case.output_dir.parent / "left"
    shutil.copytree(case.output_dir, left)
    for lock in left.rglob("*.lock"):
        lock.unlink()
    callback.flush_limit = 0.0
    calls = told.path.read_bytes() if told.path.exists() else b""
    training.end(DIED)
    if calls:  # what followed the kill has not happened
        told.path.write_bytes(calls)
    elif told.path.exists():
        told.path.unlink()
    return left, state, told


def _is_noted(output_dir: Path) -> bool:
    """Return whether it is noted that all of the journal is delivered."""
    journal = _journal(output_dir)
    progress = [json.loads(p.read_text()) for p in journal.parent.glob("*.progress.json")]
    return any(p["offset"] >= journal.stat().st_size for p in progress)


def _again(case: Case, told: Told, **options: Any) -> Any:
    """Return a new callback that sends to where the one of `told` did."""
    callback, _ = heard(case, told.path.stem, **options)
    return callback


def _goes_on(case: Case, callback: Any, left: Path, step: int, *losses: float, **args: Any) -> None:
    training = _training(case, callback, left, step, **args)
    training.begin()
    training.fire("on_epoch_begin")
    for loss in losses:
        training.step({"loss": loss})
    training.end()


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
    training = _training(case, callback, case.output_dir)
    training.begin()
    training.step({"loss": 0.5, "bad": float("nan"), "worse": float("-inf"), "list": [1]})
    records = _records(_journal(case.output_dir))
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
    kinds = [r["kind"] for r in _records(_journal(case.output_dir))]
    require(kinds == ["begin", "logs", "logs", "saved"], f"the records are {kinds}")
    training.end(KeyboardInterrupt())
    last = _records(_journal(case.output_dir))[-1]
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
    """Of a journal whose last record is cut off, all before it counts, and so does what follows."""
    fails = {"open": {"error": "ConnectionError"}}
    left, state, told = _killed(case, (0.125, 0.25), save_at=2, fails=fails)
    journal = _journal(left)
    with journal.open("ab") as file:
        file.write(b'{"kind":"logs","step":3,"logs":{"note":"' + b"z" * 70_000)
    callback = _again(case, told)
    callback.load_state_dict(state)
    _goes_on(case, callback, left, 2, 0.375, 0.5)
    expected = [(1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5)]
    require(told.points() == expected, f"the tracker has {told.points()}")
    require(b"zzz" not in journal.read_bytes(), "half a record is still in the journal")


@rule(
    "JRN-003",
    since=(1, 1),
    needs=["tracking"],
    why="A disk that fails leaves lines that are none; one of them must not cost the others.",
    mend="Leave the journal to TrackerCallback.",
)
def a_damaged_record_costs_only_itself(case: Case) -> None:
    """A line of the journal that is no record is passed over and named, and all else is sent."""
    there = case.output_dir.parent / "there"
    fails = {"open": {"error": "ConnectionError", "until": str(there)}}
    left, _, told = _killed(case, (0.125, 0.25), save_at=2, fails=fails)
    journal = _journal(left)
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


@rule(
    "JRN-004",
    since=(1, 1),
    needs=["tracking"],
    why="What a killed run has logged after its last checkpoint is logged again by the one that "
    "goes on: ray-project/ray#29916, wandb/wandb#6728.",
    mend="Say by Tracker.rewinds whether the store can forget, and leave the rest.",
)
def a_killed_run_goes_on_without_a_seam(case: Case) -> None:
    """A run that is killed and resumed is opened again, and sent what it has not got, and no more.

    What came out as before is not sent again; what came out otherwise is.
    """
    left, state, told = _killed(case, (0.125, 0.25, 0.375, 0.5), save_at=2)
    run = told.calls("open")[0]["run"] or told.calls("log_metrics")[0]["run"]
    before = len(told.calls())
    callback = _again(case, told)
    callback.load_state_dict(state)
    _goes_on(case, callback, left, 2, 0.375, 7.0, 0.625)
    opened = told.calls("open")[-1]
    wanted = (run, False, 2, None)
    found = tuple(opened[n] for n in ("run_id", "adopted", "step", "rewind_to"))
    require(found == wanted, f"it was opened again with {found} and not {wanted}")
    new = [call for call in told.calls()[before:] if call["points"]]
    sent = [(p[2], p[1]) for call in new for p in call["points"] if p[0] == "train/loss"]
    require(sent == [(4, 7.0), (5, 0.625)], f"after the kill, this was sent: {sent}")
    parameters = [c for c in told.calls()[before:] if c["call"] == "log_parameters"]
    require(not parameters, "parameters that it has were sent again")
    require(told.status == ["finished"], f"it was closed as {told.status}")


@rule(
    "JRN-005",
    since=(1, 1),
    needs=["tracking"],
    why="What had not been sent when a run was killed, and then came out otherwise, was sent too: "
    "two points of a step, of which one never was (wandb/wandb#6728).",
    mend="Leave to TrackerCallback what of a journal still counts.",
)
def what_was_replaced_before_it_was_sent_is_not_sent(case: Case) -> None:
    """What a killed run had logged after the checkpoint, and had not sent, is sent once: the new.

    So with its checkpoints. Where nothing was saved, what counts is what came before the step.
    """
    for save_at in (2, 0):
        for each in case.output_dir.parent.glob("*"):
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        case.output_dir.mkdir()
        fails = {"open": {"error": "ConnectionError"}}
        left, state, told = _killed(
            case, (0.125, 0.25, 0.375, 0.5), save_at=save_at, checkpoints=True, fails=fails
        )
        callback = _again(case, told, checkpoints=True)
        callback.load_state_dict(state)
        _goes_on(case, callback, left, 2, 0.375, 7.0)
        expected = [(1, 0.125), (2, 0.25), (3, 0.375), (4, 7.0)]
        where = "saved at 2" if save_at else "nowhere saved"
        require(told.points() == expected, f"of a run {where}, the tracker has {told.points()}")
        uploads = [call["name"] for call in told.calls("log_files")]
        require(uploads == ["checkpoint-2"] * bool(save_at), f"checkpoints sent: {uploads}")
        journals = [*left.glob("tracking/*/journal.jsonl")]
        require(len(journals) == 1, f"a run that goes on has {len(journals)} journals")


@rule(
    "JRN-006",
    since=(1, 1),
    needs=["tracking"],
    why="A store that forgets from a step on has to be told which, and be given all that it has "
    "forgotten: roboflow/rf-detr#1321.",
    mend="Rewind in open to opening.rewind_to; all from there on is sent anew.",
)
def one_that_rewinds_is_told_to_which_step(case: Case) -> None:
    """A tracker that can forget is told from which step on, and sent all from there on anew.

    Where it has all, and nothing is replaced, it is told of no step.
    """
    left, state, told = _killed(case, (0.125, 0.25, 0.375, 0.5), save_at=2, rewinds=True)
    before = len(told.calls())
    callback = _again(case, told, rewinds=True)
    callback.load_state_dict(state)
    _goes_on(case, callback, left, 2, 0.375, 7.0)
    opened = told.calls("open")[-1]
    require(opened["rewind_to"] == 3, f"it was told to forget from {opened['rewind_to']} on")
    new = [p for call in told.calls()[before:] for p in call["points"] if p[0] == "train/loss"]
    sent = [(p[2], p[1]) for p in new]
    require(sent == [(3, 0.375), (4, 7.0)], f"after it had forgotten, it was sent {sent}")
    callback = _again(case, told, rewinds=True)
    callback.load_state_dict(state)
    before = len(told.calls())
    _goes_on(case, callback, left, 4, 0.625)
    opened = told.calls("open")[-1]
    require(opened["rewind_to"] is None, f"with nothing replaced, it is {opened['rewind_to']}")
    new = [p for call in told.calls()[before:] for p in call["points"] if p[0] == "train/loss"]
    require([(p[2], p[1]) for p in new] == [(5, 0.625)], f"it was sent {new}")


@rule(
    "JRN-007",
    since=(1, 1),
    needs=["tracking"],
    why="A store that was killed while it was sent to may have a point or not; twice is wrong, and "
    "so is never (ray-project/ray#29916).",
    mend="Rewind where the store can; else the store tells by time what it has.",
)
def what_may_have_been_sent_is_sent_again_as_the_same(case: Case) -> None:
    """What was under way when a run was killed is sent again: the same point, with its time.

    One that rewinds is told to forget it first.
    """
    for rewinds in (False, True):
        for each in case.output_dir.parent.glob("*"):
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        case.output_dir.mkdir()
        left, state, told = _killed(case, (0.125, 0.25, 0.375), save_at=3, rewinds=rewinds)
        for file in left.glob("tracking/*/*.progress.json"):
            progress = json.loads(file.read_text())
            journal = _journal(left).read_bytes()
            # It was noted last before the third step.
            progress["offset"] = journal.index(b'{"kind":"logs","step":3')
            file.write_text(json.dumps(progress))
        first = [p for c in told.calls() for p in c["points"] if p[:3] == ["train/loss", 0.375, 3]]
        callback = _again(case, told, rewinds=rewinds)
        callback.load_state_dict(state)
        _goes_on(case, callback, left, 3, 0.5)
        every = [p for c in told.calls() for p in c["points"] if p[0] == "train/loss" and p[2] == 3]
        require(len(every) == 2 and every[0] == every[1] == first[0], f"of step 3 it has {every}")
        to = told.calls("open")[-1]["rewind_to"]
        require(to == (3 if rewinds else None), f"it was told to forget from {to} on")


@rule(
    "JRN-008",
    since=(1, 1),
    needs=["tracking"],
    why="Not every loop keeps what callbacks want kept: huggingface/transformers#33875.",
    mend="Leave it to TrackerCallback to find the run in the output directory.",
)
def a_run_is_found_without_its_state(case: Case) -> None:
    """Where the loop has kept no state, a resumed training goes on in the newest run that is there.

    A training that begins anew is another run, and one of a state that is loaded, too.
    """
    left, _, told = _killed(case, (0.125, 0.25), save_at=2)
    run = told.calls("log_metrics")[0]["run"]
    _goes_on(case, _again(case, told), left, 2, 0.375)
    opened = told.calls("open")[-1]["run_id"]
    require(opened == run, f"without its state, it goes on in {opened} and not in {run}")
    callback = _again(case, told)
    callback.load_state_dict({"run": "gone", "run_id": "gone"})
    _goes_on(case, callback, left, 0, 0.5)
    opened = told.calls("open")[-1]["run_id"]
    require(opened is None, f"a training that begins anew goes on in {opened}")
    state = callback.state_dict()
    folders = sorted(path.name for path in left.glob("tracking/*"))
    require(len(folders) == 2 and state["run"] in folders, f"the runs are {folders}: {state}")
    require(state["run_id"] == told.calls("close")[-1]["run"], f"its state is {state}")


@rule(
    "JRN-009",
    since=(1, 1),
    needs=["tracking"],
    why="Two processes that resume one run, as after a job was started twice, tear its file "
    "(huggingface/transformers#28009).",
    mend="Leave the lock to TrackerCallback.",
)
def two_that_go_on_in_one_run_do_not_mix(case: Case) -> None:
    """Where a run is being written already, another training of it is kept apart, and says so."""
    left, state, told = _killed(case, (0.125, 0.25), save_at=2)
    holds = (
        "import sys; from pathlib import Path; from callback_core.tracking.lock import FileLock;"
        "lock = FileLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    import subprocess
    import sys

    from callback_contract.testing import environment

    lock = _journal(left).with_suffix(".lock")
    other = subprocess.Popen(
        [sys.executable, "-c", holds, str(lock)],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert other.stdout is not None
        other.stdout.readline()
        callback = _again(case, told)
        callback.load_state_dict(state)
        with said() as lines:
            _goes_on(case, callback, left, 2, 0.375)
    finally:
        other.communicate(timeout=60)
    journals = [*left.glob("tracking/*/journal.jsonl")]
    require(len(journals) == 2, f"there are {len(journals)} journals of two trainings at once")
    require(any("Another training" in line for line in lines), f"it said {lines}")
    require((3, 0.375) in told.points(), f"the tracker has {told.points()}")


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
    _, _, told = _killed(case, (0.125,), fails={"open": {"error": "ConnectionError"}})
    with said() as lines:
        _goes_on(case, _again(case, told), case.output_dir, 0, 0.5)
    (first, _) = sorted(path.name for path in case.output_dir.glob("tracking/*"))
    about = [line for line in lines if "earlier run" in line]
    whole = len(about) == 1 and f"1 earlier run ({first})" in about[0]
    require(whole and "delivers it" in about[0], f"of one earlier run it said {lines}")
    require("callback_core.tracking.replay" in about[0], f"it does not say how: {about}")
    _killed_again(case)
    with said() as lines:
        _goes_on(case, _again(case, told), case.output_dir, 0, 0.5)
    about = [line for line in lines if "earlier run" in line]
    whole = len(about) == 1 and "2 earlier runs:" in about[0] and "delivers them" in about[0]
    require(whole, f"of two earlier runs it said {lines}")
    both = case.output_dir / "both"
    training = _training(case, _again(case, told), both)
    training.begin()
    training.step({"loss": 0.5})
    with said() as lines:
        _goes_on(case, heard(case, "beside")[0], both, 0, 0.5)
    training.end()
    require(not lines, f"of one that is still running it said {lines}")


def _killed_again(case: Case) -> None:
    callback, _ = heard(case, "another", fails={"open": {"error": "ConnectionError"}})
    callback.flush_limit = 0.0
    _goes_on(case, callback, case.output_dir, 0, 0.5)


@rule(
    "JRN-011",
    since=(1, 1),
    needs=["tracking"],
    why="An output directory that cannot be written to, as on a full or a read-only disk, is "
    "found at the first checkpoint; the curves until then would tell why.",
    mend="Leave to TrackerCallback where the journal is.",
)
def where_the_directory_cannot_be_written_it_is_kept_elsewhere(case: Case) -> None:
    """Where the output directory takes no journal, it is elsewhere, which is said; all is sent."""
    (case.output_dir / "tracking").write_text("a file where the directory is to be")
    callback, told = heard(case)
    with said() as lines:
        _goes_on(case, callback, case.output_dir, 0, 0.5)
    require(told.points() == [(1, 0.5)], f"the tracker has {told.points()}")
    about = [line for line in lines if "cannot be kept in" in line]
    require(len(about) == 1 and "It is kept in" in about[0], f"it said {lines}")
    if about:
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
output, heard = sys.argv[1:]
fails = {"open": {"error": "ConnectionError", "times": 1}}
callback = TrackerCallback(Heard(heard, fails=fails), flush_limit=5.0 if "again" in output else 0.2)
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
    training.step({"loss": 0.5})
    training.end()
else:
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

    What never is, is said at the end, and how much.
    """
    for name, expected in (
        ("again", [(1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5)]),
        ("full", None),
    ):
        folder = case.output_dir / name
        folder.mkdir()
        told = Told(folder / "told.jsonl")
        done = run_python("-c", _FULL, str(folder), str(told.path))
        require(done.returncode == 0, f"with a full disk, training failed: {done.stderr[-500:]}")
        require('"logs"' in done.stdout, f"half a record was left: {done.stdout}")
        said_once = done.stderr.count("cannot be written") - done.stderr.count("has come cannot")
        require(said_once == 1 or name == "full", f"it said {said_once} times: {done.stderr}")
        lost = "records could not be written" in done.stderr
        if expected is not None:
            require(told.points() == expected, f"once there was room, it has {told.points()}")
            require(not lost, f"it said that some are lost: {done.stderr}")
        else:
            require("3 records could not be written" in done.stderr, f"it said {done.stderr}")


_UNENDED: Final = """
import sys
from callback_contract._case import Arguments, Training
from callback_contract._heard import Heard
from callback_core import TrainerState
from callback_core.tracking import replay
from callback_core.tracking import TrackerCallback

output, heard, error = sys.argv[1:]
callback = TrackerCallback(Heard(heard))
training = Training([callback], Arguments(output), TrainerState(epoch=0.0, max_steps=8))
training.begin()
training.step({"loss": 0.125})
if error:
    raise {"KeyboardInterrupt": KeyboardInterrupt, "ValueError": ValueError}[error]
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

    By an error, and without one, as failed; by Ctrl-C as interrupted. All points are sent.
    """
    for error, status in (
        ("", "failed"),
        ("ValueError", "failed"),
        ("KeyboardInterrupt", "interrupted"),
    ):
        folder = case.output_dir / f"by {error}"
        folder.mkdir()
        told = Told(folder / "told.jsonl")
        run_python("-c", _UNENDED, str(folder), str(told.path), error)
        require(told.points() == [(1, 0.125)], f"after {error or 'nothing'} it has {told.points()}")
        require(told.status == [status], f"after {error or 'nothing'} it is {told.status}")
        last = _records(_journal(folder))[-1]
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
    import os
    import warnings

    callback, told = heard(case)
    training = _training(case, callback, case.output_dir)
    training.begin()
    training.step({"loss": 0.125})
    comes_true(case, lambda: told.points())
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
    training.step({"loss": 0.25})
    training.end()
    require(told.points() == [(1, 0.125), (2, 0.25)], f"the tracker has {told.points()}")
    require(told.status == ["finished"], f"it was closed as {told.status}")
    kinds = [record["kind"] for record in _records(_journal(case.output_dir))]
    require(kinds == ["begin", "logs", "logs", "end"], f"the journal has {kinds}")
