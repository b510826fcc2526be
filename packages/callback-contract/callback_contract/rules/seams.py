"""Journal: a run that was killed goes on without a seam."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from callback_contract._case import DIED, Case
from callback_contract._heard import heard
from callback_contract._killed import (
    again,
    begin_anew,
    goes_on,
    held_elsewhere,
    is_noted,
    journal_of,
    killed,
    training_in,
)
from callback_contract._rule import require, rule
from callback_contract._stored import in_time, said
from callback_contract._watching import open_files


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

    What came out as before is not sent again, NaN too; what came out otherwise is.
    """
    nan = math.nan
    left, state, told = killed(case, (0.125, 0.25, 0.375, nan, nan, 0.5), save_at=2)
    run = told.calls("open")[0]["run"] or told.calls("log_metrics")[0]["run"]
    before = len(told.calls())
    callback = again(case, told)
    callback.load_state_dict(state)
    goes_on(case, callback, left, 2, 0.375, 7.0, nan, 0.5, 0.625)
    opened = told.calls("open")[-1]
    wanted = (run, False, 2, None)
    found = tuple(opened[n] for n in ("run_id", "adopted", "step", "rewind_to"))
    require(found == wanted, f"it was opened again with {found} and not {wanted}")
    new = [call for call in told.calls()[before:] if call["points"]]
    sent = [(p[2], p[1]) for call in new for p in call["points"] if p[0] == "train/loss"]
    require(sent == [(4, 7.0), (7, 0.625)], f"after the kill, this was sent: {sent}")
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
    for second, save_at, later_save_at, gone in (
        (0.25, 2, 3, False),
        (0.25, 2, 3, True),
        (0.25, 0, 0, False),
        (None, 2, 3, False),  # a checkpoint of a step at which nothing was logged
    ):
        begin_anew(case)
        fails = {"open": {"error": "ConnectionError"}}
        left, state, told = killed(
            case, (0.125, second, 0.375, 0.5), save_at=save_at, later_save_at=later_save_at,
            late={"late": 0.5}, checkpoints=True, fails=fails,
        )  # fmt: skip
        for kept in left.glob("tracking/*/files/*/checkpoint-3") if gone else ():
            shutil.rmtree(kept)
        callback = again(case, told, checkpoints=True)
        callback.load_state_dict(state)
        goes_on(case, callback, left, 2, 0.375, 7.0)
        found = told.points("train/late")
        require(not found, f"of what was logged when the checkpoint was saved, it has {found}")
        logged = enumerate((0.125, second, 0.375, 7.0), 1)
        expected = [point for point in logged if point[1] is not None]
        where = "saved at 2" if save_at else "nowhere saved"
        require(told.points() == expected, f"of a run {where}, the tracker has {told.points()}")
        uploads = [call["name"] for call in told.calls("log_files")]
        require(uploads == ["checkpoint-2"] * bool(save_at), f"checkpoints sent: {uploads}")
        copies = [path.name for path in left.glob("tracking/*/files/*/*")]
        require(not copies, f"what is not sent is kept: {copies}")
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
    left, state, told = killed(case, (0.125, 0.25, 0.375, 0.5), save_at=2, rewinds=True)
    before = len(told.calls())
    callback = again(case, told, rewinds=True)
    callback.load_state_dict(state)
    goes_on(case, callback, left, 2, 0.375, 7.0)
    opened = told.calls("open")[-1]
    require(opened["rewind_to"] == 3, f"it was told to forget from {opened['rewind_to']} on")
    new = [p for call in told.calls()[before:] for p in call["points"] if p[0] == "train/loss"]
    sent = [(p[2], p[1]) for p in new]
    require(sent == [(3, 0.375), (4, 7.0)], f"after it had forgotten, it was sent {sent}")
    callback = again(case, told, rewinds=True)
    callback.load_state_dict(state)
    before = len(told.calls())
    goes_on(case, callback, left, 4, 0.625)
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
    for rewinds, save_at in ((False, 3), (True, 3), (False, 2)):
        begin_anew(case)
        left, state, told = killed(case, (0.125, 0.25, 0.375), save_at=save_at, rewinds=rewinds)
        _noted_to(left, b'{"kind":"logs","step":3')
        first = [p for c in told.calls() for p in c["points"] if p[:3] == ["train/loss", 0.375, 3]]
        callback = again(case, told, rewinds=rewinds)
        callback.load_state_dict(state)
        goes_on(case, callback, left, save_at, *(0.375, 0.5)[save_at - 2 :])
        every = [p for c in told.calls() for p in c["points"] if p[0] == "train/loss" and p[2] == 3]
        require(len(every) == 2 and every[0] == every[1] == first[0], f"of step 3 it has {every}")
        to = told.calls("open")[-1]["rewind_to"]
        require(to == (3 if rewinds else None), f"it was told to forget from {to} on")


@rule(
    "JRN-022",
    since=(1, 1),
    needs=["tracking"],
    why="A store that forgets a step forgets all of it, also what it had for certain: "
    "roboflow/rf-detr#1321.",
    mend="Rewind in open to opening.rewind_to; all from there on is sent anew.",
)
def what_is_forgotten_with_the_rest_is_sent_again(case: Case) -> None:
    """All that a tracker forgets when it rewinds is sent again, also what it had for certain.

    So are parameters where it forgets from the beginning, and only there. A checkpoint that it has
    is not.
    """
    for besides, noted_to, step in (
        ({4: [{"late": 0.5}]}, b'{"kind":"logs","step":4', 4),  # of which it has the loss
        ({}, b'{"kind":"begin"', 1),
        ({0: [{"first": 0.5}, {"early": 0.5}]}, b'{"kind":"logs","step":0', 0),
    ):
        begin_anew(case)
        losses = (0.125, 0.25, 0.375, 0.5)
        left, state, told = killed(case, losses, save_at=4, besides=besides, rewinds=True)
        _noted_to(left, noted_to)
        before = [call["points"] for call in told.calls("log_metrics")]
        sent = {(point[0], point[2]) for points in before for point in points if point[2] >= step}
        callback = again(case, told, rewinds=True)
        callback.load_state_dict(state)
        goes_on(case, callback, left, 4, 0.625)
        to = told.calls("open")[-1]["rewind_to"]
        require(to == step, f"it was told to forget from {to} on, and not from {step}")
        after = [call["points"] for call in told.calls("log_metrics")[len(before) :]]
        missing = sent - {(point[0], point[2]) for points in after for point in points}
        require(not missing, f"it forgot from {step} on, and was not sent {sorted(missing)} again")
        sent_parameters = len(told.calls("log_parameters"))
        wanted = 2 if step == 0 else 1
        require(sent_parameters == wanted, f"from {step} on: parameters {sent_parameters} times")
    begin_anew(case)
    takes: dict[str, Any] = {"rewinds": True, "checkpoints": True}
    left, state, told = killed(case, (0.125,), save_at=1, late={"late": 0.5}, **takes)
    _noted_to(left, b'{"kind":"logs","step":1')  # which is behind the checkpoint
    callback = again(case, told, **takes)
    callback.load_state_dict(state)
    with said() as lines:
        goes_on(case, callback, left, 1, 0.25)
    to = told.calls("open")[-1]["rewind_to"]
    require(to == 1 and not lines, f"it was told to forget from {to} on, and said {lines}")


def _noted_to(left: Path, record: bytes) -> None:
    """Have it noted that the journal was delivered to the last record that begins so."""
    for file in left.glob("tracking/*/*.progress.json"):
        progress = json.loads(file.read_text())
        progress["offset"] = journal_of(left).read_bytes().rindex(record)
        file.write_text(json.dumps(progress))


@rule(
    "JRN-008",
    since=(1, 1),
    needs=["tracking"],
    why="Not every loop keeps what callbacks want kept: huggingface/transformers#33875.",
    mend="Leave it to TrackerCallback to find the run in the output directory.",
)
def a_run_is_found_without_its_state(case: Case) -> None:
    """Where the loop has kept no state, a resumed training goes on in the newest run that is there.

    It is known from the moment at which it was opened. A training that begins anew is another run,
    and one of a state that is loaded, too. The run that the user has opened comes before it.
    """
    left, _, told = killed(case, (0.125, 0.25), save_at=2)
    run = told.calls("log_metrics")[0]["run"]
    goes_on(case, again(case, told), left, 2, 0.375)
    opened = told.calls("open")[-1]["run_id"]
    require(opened == run, f"without its state, it goes on in {opened} and not in {run}")
    goes_on(case, again(case, told, adopts="another of the user's"), left, 3, 0.5)
    opened = told.calls("open")[-1]["run_id"]
    require(opened == "another of the user's", f"and not in the user's run, it goes on in {opened}")
    callback = again(case, told)
    callback.load_state_dict({"run": "gone", "run_id": "gone"})
    goes_on(case, callback, left, 0, 0.5)
    opened = told.calls("open")[-1]["run_id"]
    require(opened is None, f"a training that begins anew goes on in {opened}")
    state = callback.state_dict()
    folders = sorted(path.name for path in left.glob("tracking/*"))
    require(len(folders) == 2 and state["run"] in folders, f"the runs are {folders}: {state}")
    require(state["run_id"] == told.calls("close")[-1]["run"], f"its state is {state}")
    begin_anew(case)
    away = {name: {"error": "ConnectionError"} for name in ("log_parameters", "log_metrics")}
    left, _, told = killed(case, (0.125,), fails=away)
    run = told.calls("log_parameters", failed=True)[0]["run"]
    goes_on(case, again(case, told), left, 1, 0.25)
    opened = told.calls("open")[-1]["run_id"]
    require(opened == run, f"of one that was only opened, it goes on in {opened} and not in {run}")


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
    left, state, told = killed(case, (0.125, 0.25), save_at=2)
    with held_elsewhere(journal_of(left).with_suffix(".lock")), said() as lines:
        callback = again(case, told)
        callback.load_state_dict(state)
        goes_on(case, callback, left, 2, 0.375)
    journals = [*left.glob("tracking/*/journal.jsonl")]
    require(len(journals) == 2, f"there are {len(journals)} journals of two trainings at once")
    require(len(lines) == 1 and "Another training" in lines[0], f"it said {lines}")
    require((3, 0.375) in told.points(), f"the tracker has {told.points()}")


@rule(
    "JRN-015",
    since=(1, 1),
    needs=["tracking"],
    why="Several runs that were resumed from the latest became one, with the name of the last: "
    "mlfoundations/open_clip#340.",
    mend="Keep what state_dict of TrackerCallback returns in the checkpoint, and load it.",
)
def a_checkpoint_goes_on_in_its_own_run(case: Case) -> None:
    """A training goes on in the run of the checkpoint that it resumes, also if one came later."""
    left, state, told = killed(case, (0.125, 0.25), save_at=1)
    run = told.calls("log_metrics")[0]["run"]
    goes_on(case, again(case, told), left, 0, 0.5, 0.75)  # which is another run
    callback = again(case, told)
    callback.load_state_dict(state)
    goes_on(case, callback, left, 1, 0.375, learning_rate=0.75)
    opened = told.calls("open")[-1]["run_id"]
    require(opened == run, f"it goes on in {opened} and not in {run}")
    rate = told.calls("log_parameters")[-1]["parameters"]["learning_rate"]
    require(rate == 0.75, f"of the learning rate that it goes on with, it was told {rate}")
    found = callback.state_dict()["run"]
    require(found == state["run"], f"it is recorded in {found} and not in {state['run']}")


@rule(
    "JRN-016",
    since=(1, 1),
    needs=["tracking"],
    why="A process that waits for another for a night must not run out of files meanwhile.",
    mend="Leave the lock to TrackerCallback.",
)
def waiting_for_another_costs_nothing(case: Case) -> None:
    """While another process delivers to the tracker, no files pile up; then all is sent.

    Where it still does at the end of training, this is said.
    """
    left, state, told = killed(case, (0.125, 0.25), save_at=2)
    callback = again(case, told)
    callback.load_state_dict(state)
    training = training_in(case, callback, left, 2)
    with held_elsewhere(journal_of(left).with_name("heard.lock")):
        training.begin()
        training.fire("on_epoch_begin")
        training.step({"loss": 0.375})
        before = open_files()
        in_time(lambda: len(open_files() - before) > 2, 1.0)
        piled = open_files() - before
        early = told.points()[2:]
    training.end()
    with held_elsewhere(journal_of(left).with_name("heard.lock")), said() as lines:
        callback = again(case, told)
        callback.load_state_dict(state)
        callback.flush_limit = 1.0
        goes_on(case, callback, left, 3)
    named = [line for line in lines if "heard.lock is held by another process" in line]
    require(len(named) == 1, f"of one that waits for another at its end it said {lines}")
    require(not early, f"another delivers, and it was sent {early} too")
    require(len(piled) <= 2, f"in a second, {len(piled)} files were opened: {sorted(piled)}")
    require(told.points()[2:] == [(3, 0.375)], f"at the end, the tracker has {told.points()}")


@rule(
    "JRN-018",
    since=(1, 1),
    needs=["tracking"],
    why="What one attempt has logged, and never sent, must not count as sent when a later one logs "
    "the same: points would be missing that every attempt had (wandb/wandb#2971).",
    mend="Leave it to TrackerCallback what has been sent.",
)
def what_was_never_sent_is_sent_by_whoever_logs_it_again(case: Case) -> None:
    """A point that a killed attempt has not sent is sent when a later attempt logs it again."""
    fails = {"log_metrics": {"error": "ConnectionError"}}
    left, state, told = killed(case, (0.125, 0.25, 0.375, 0.5), save_at=2, fails=fails)
    losses: tuple[float, ...]
    for losses in ((7.0, 8.0), (0.375, 0.5)):
        callback = again(case, told)
        callback.load_state_dict(state)
        goes_on(case, callback, left, 2, *losses)
    expected = [(1, 0.125), (2, 0.25), (3, 7.0), (4, 8.0), (3, 0.375), (4, 0.5)]
    require(told.points() == expected, f"after three attempts, the tracker has {told.points()}")
    for away, step, losses in ((fails, 4, (9.0,)), ({}, 4, (0.625,)), ({}, 2, (0.375, 0.5))):
        callback = again(case, told, fails=away)
        callback.load_state_dict(state)
        callback.flush_limit = 0.1 if away else 30.0
        goes_on(case, callback, left, step, *losses)
    expected += [(5, 0.625)]
    require(told.points() == expected, f"after six attempts, the tracker has {told.points()}")


@rule(
    "JRN-019",
    since=(1, 1),
    needs=["tracking"],
    why="A run that was killed shows as running for ever: huggingface/transformers#30333.",
    mend="Leave it to TrackerCallback to look for earlier runs.",
)
def a_killed_run_is_named_though_it_is_sent(case: Case) -> None:
    """A run that was killed when all of it was sent is named by the next: nobody has closed it."""
    left, _, told = killed(case, (0.125, 0.25))
    with said() as lines:
        goes_on(case, again(case, told), left, 0, 0.5)
    about = [line for line in lines if "1 earlier run (" in line]
    require(len(about) == 1, f"of a run that nobody has closed it said {lines}")


@rule(
    "JRN-020",
    since=(1, 1),
    needs=["tracking"],
    why="How long an evaluation took is never the same twice; a second point of it at one step "
    "says nothing (wandb/wandb#6728).",
    mend="Leave it to TrackerCallback what has been sent.",
)
def what_measures_time_is_sent_once(case: Case) -> None:
    """Of what measures time, the first value of a step stands, whatever a later attempt has."""
    callback, told = heard(case)
    training = training_in(case, callback, case.output_dir)
    training.begin()
    training.fire("on_epoch_begin")
    training.step({"loss": 0.125})
    training.step({"loss": 0.25})
    training.evaluate({"eval_loss": 0.5, "eval_runtime": 0.25})
    in_time(lambda: told.points("eval/runtime") and is_noted(case.output_dir))
    state = callback.state_dict()
    training.end(DIED)
    callback = again(case, told)
    callback.load_state_dict(state)
    training = training_in(case, callback, case.output_dir, 1)
    training.begin()
    training.fire("on_epoch_begin")
    training.step({"loss": 0.25})
    training.evaluate({"eval_loss": 0.75, "eval_runtime": 0.375})
    training.end()
    found = told.points("eval/runtime"), told.points("eval/loss")
    expected = [(2, 0.25)], [(2, 0.5), (2, 0.75)]
    require(found == expected, f"of the runtime and the loss, the tracker has {found}")


@rule(
    "JRN-021",
    since=(1, 1),
    needs=["tracking"],
    why="Of a node that is gone there is often no more than the checkpoint, in a bucket: "
    "KempnerInstitute/KempnerForge#19.",
    mend="Keep what state_dict of TrackerCallback returns in the checkpoint, and load it.",
)
def a_checkpoint_alone_finds_its_run(case: Case) -> None:
    """A training that is resumed in another directory, from a checkpoint, goes on in its run.

    Only there: the one after that is a run of its own.
    """
    _, state, told = killed(case, (0.125,), save_at=1)
    run = told.calls("log_metrics")[0]["run"]
    elsewhere = case.output_dir.parent / "elsewhere"
    callback = again(case, told)
    callback.load_state_dict(state)
    goes_on(case, callback, elsewhere, 1, 0.375)
    opened = told.calls("open")[-1]["run_id"]
    require(opened == run, f"from its checkpoint alone, it goes on in {opened} and not in {run}")
    goes_on(case, callback, case.output_dir.parent / "later", 2, 0.5)
    opened = told.calls("open")[-1]["run_id"]
    require(opened is None, f"the training after that goes on in {opened}")
