"""Trackers: which run a training is sent to, whose it is, and what becomes of its files."""

from __future__ import annotations

import gc
import shutil
import sys
import weakref
from pathlib import Path
from time import time
from typing import Any

from callback_contract._case import DIED, Case
from callback_contract._heard import heard, opens, trained
from callback_contract._rule import require, rule
from callback_contract._stored import in_time, said
from callback_core import TrainerState
from callback_core.tracking import Recording


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
    trained(case, callback, {"loss": 0.5}, args=case.arguments(run_name="a name"))
    state = TrainerState(epoch=0.0, max_steps=4, is_hyper_param_search=True)
    state.trial_name, state.trial_params = "trial-7", {"learning_rate": 0.5}
    trained(case, callback, {"loss": 0.5}, state=state)
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
        trained(case, callback, {"loss": 0.5})
    opened = told.calls("open")[0]
    require((opened["run_id"], opened["adopted"]) == ("the user's", True), f"it opened {opened}")
    require(told.status == [None], f"it was closed as {told.status}")
    require(not lines, f"it said {lines}")
    require(callback.state_dict()["run_id"] == "the user's", f"it keeps {callback.state_dict()}")
    callback, told = heard(
        case, "second", adopts="another", fails={"adopt": {"error": "RuntimeError"}}
    )
    with said() as lines:
        trained(case, callback, {"loss": 0.5})
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
        done = in_time(lambda n=number: len(told.status) == n + 1)  # type: ignore[misc]
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

    One that is saved once more is sent as it is then. One that is not taken is not asked for, and
    where the loop does not say which it is, it is that of the step.
    """
    late = case.output_dir.parent / "late"
    callback, told = heard(case, checkpoints=True, fails=opens(late))
    callback.delivery = "thread"
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    saved = training.save()
    files = {file.name: file.stat().st_size for file in saved.iterdir()}
    for file in saved.iterdir():
        file.unlink()
    training.save()
    (saved / "trainer_state.json").unlink()
    late.touch()
    training.end()
    uploads = told.calls("log_files")
    found = [(call["name"], call["step"], call["files"]) for call in uploads]
    require(("checkpoint-1", 1, files) in found, f"of {files}, this was sent: {found}")
    left = [*case.output_dir.glob("tracking/*/files/*/*")]
    require(not left, f"what was sent is kept: {left}")
    late.unlink()
    callback, told = heard(case, "again", checkpoints=True, fails=opens(late))
    callback.delivery = "thread"
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    saved = training.save()
    (saved / "model.safetensors").unlink()
    training.fire("on_save")
    late.touch()
    training.end()
    sent = [(call["name"], [*call["files"]]) for call in told.calls("log_files")]
    require(sent[:1] == [("checkpoint-1", ["trainer_state.json"])], f"it was sent {sent}")
    callback, told = heard(case, "other")
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    training.save()
    training.end()
    require(not told.calls("log_files"), "one that takes no checkpoints was sent one")


@rule(
    "TRK-038",
    since=(1, 1),
    needs=["tracking"],
    why="Files that waited to be sent were deleted meanwhile, and with them went the artifact: "
    "wandb/server#149.",
    mend="Leave checkpoints to TrackerCallback.",
)
def a_checkpoint_that_is_gone_is_named(case: Case) -> None:
    """A checkpoint whose copy was deleted before it was sent is named, and all else is sent."""
    late = case.output_dir.parent / "late"
    callback, told = heard(case, checkpoints=True, fails=opens(late))
    callback.delivery = "thread"
    training = case.training(callback)
    with said() as lines:
        training.begin()
        training.step({"loss": 0.5})
        training.save()
        for copied in case.output_dir.glob("tracking/*/files/*"):
            shutil.rmtree(copied)
        training.step({"loss": 0.25})
        late.touch()
        training.end()
    require(told.points() == [(1, 0.5), (2, 0.25)], f"the points that came are {told.points()}")
    require(not told.calls("log_files"), "it was sent a checkpoint of which nothing is left")
    named = [line for line in lines if "checkpoint-1: its files are gone" in line]
    require(len(named) == 1, f"it said {lines}")


@rule(
    "TRK-041",
    since=(1, 1),
    needs=["tracking"],
    why="What fails before the first step, as for want of memory, is what somebody looks for in a "
    "tracker: huggingface/transformers#30333.",
    mend="Leave it to TrackerCallback, which records from on_train_begin on.",
)
def a_training_that_ends_before_it_begins_is_there(case: Case) -> None:
    """A training that fails before its first epoch is opened, and closed as failed."""
    callback, told = heard(case)
    training = case.training(callback)
    training.begin()
    training.end(DIED)
    require(told.status == ["failed"], f"it was closed {told.status}")
    sent = [call for call in told.names if call in ("open", "log_parameters", "close")]
    require(sent == ["open", "log_parameters", "close"], f"the tracker was told {told.names}")


@rule(
    "TRK-045",
    since=(1, 1),
    needs=["tracking"],
    why="A loop that raises and says nothing, in a notebook or a search, leaves a run that shows "
    "as running for ever: huggingface/transformers#30333.",
    mend="Leave it to TrackerCallback to end what is over.",
)
def what_a_loop_has_left_is_closed_when_another_begins(case: Case) -> None:
    """A training that is gone is closed as failed when the next begins.

    An error of its tracker costs the next nothing. One that is resumed in the same process is
    closed too; one that still goes on is left alone.
    """
    left, told_left = heard(case, "left")
    training = case.training(left)
    training.begin()
    training.step({"loss": 0.5})
    going, told_going = heard(case, "going", fails={"release": {"error": "RuntimeError"}})
    beside = case.training(going)
    beside.begin()
    beside.step({"loss": 0.25})
    require(not told_left.status, "a training that goes on was closed when another began")
    state = weakref.ref(training.state)
    del training
    gc.collect()
    require(state() is None, "the state of a training that is gone is kept")
    callback, told = heard(case, "next")
    callback.load_state_dict(going.state_dict())
    resumed = case.training(callback, state=TrainerState(global_step=1, epoch=0.5, max_steps=4))
    resumed.begin()
    require(told_left.status == ["failed"], f"what was gone was closed {told_left.status}")
    require(told_going.status == ["failed"], f"what is resumed was closed {told_going.status}")
    resumed.step({"loss": 0.125})
    resumed.end()
    require(told.points()[-1:] == [(2, 0.125)], f"the resumed training sent {told.points()}")
    folders = len([*case.output_dir.glob("tracking/*")])
    require(folders == 2, f"two runs, of which one is resumed, are kept in {folders} folders")


@rule(
    "TRK-049",
    since=(1, 1),
    needs=["tracking"],
    why="Of a tracker that is added for the last epochs one wants the curve, and not its end: "
    "comet-ml/issue-tracking#536.",
    mend="Leave it to TrackerCallback to find what is recorded.",
)
def a_tracker_that_comes_late_is_sent_the_whole_run(case: Case) -> None:
    """A tracker that is added after a training, or when it is resumed, is sent all of the run."""
    first, _ = heard(case, "first")
    training = trained(case, first, {"loss": 0.5})
    late, told = heard(case, "late")
    training.callbacks.append(late)
    training.evaluate({"eval_loss": 0.25})
    in_time(lambda: told.points("eval/loss"))
    found = told.points(), told.points("eval/loss")
    require(found == ([(1, 0.5)], [(1, 0.25)]), f"one that came after the end has {found}")
    resumed, told = heard(case, "resumed")
    resumed.load_state_dict(first.state_dict())
    state = TrainerState(global_step=1, epoch=0.5, max_steps=4)
    trained(case, resumed, {"loss": 0.125}, state=state)
    sent, begins = told.points(), told.calls("open")[0]["step"]
    require(sent == [(1, 0.5), (2, 0.125)], f"one that came when it was resumed has {sent}")
    require(begins == 0, f"it is told of a run that begins at step {begins}")
    folders = len([*case.output_dir.glob("tracking/*")])
    require(folders == 1, f"one run is kept in {folders} folders")


@rule(
    "TRK-050",
    since=(1, 1),
    needs=["tracking"],
    why="A search of hundreds of trials in one process must not keep each of them in memory.",
    mend="Leave recordings to TrackerCallback, and keep none.",
)
def what_is_over_is_let_go_of(case: Case) -> None:
    """What is kept in memory of a training that is over and gone is let go of by the next."""
    callback, _ = heard(case, "gone")
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    found = Recording.of(training.state)
    require(found is not None, "a training that goes on is not found by its state")
    recording = weakref.ref(found)
    training.end()
    case.let_go()
    del training, callback, found
    trained(case, heard(case, "next")[0], {"loss": 0.25})
    gc.collect()
    require(recording() is None, "a training that is over, and that nobody has, is kept")


@rule(
    "TRK-046",
    since=(1, 1),
    needs=["tracking"],
    why="What is known only at the end, as the energy that was used, came when the run was closed.",
    mend="Give it to Recording.before_end, which calls it before the trackers are closed.",
)
def what_is_to_be_logged_at_the_end_is(case: Case) -> None:
    """What `Recording.before_end` is given is called once, before the run is closed.

    It knows how the training ends. What it raises is logged, and all else is done.
    """
    callback, told = heard(case)
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.5})
    recording = Recording.of(training.state)
    require(recording is not None, "a training that goes on is not found by its state")
    assert recording is not None
    endings: list[Any] = []

    def fail() -> None:
        raise ArithmeticError("of no meter")

    def log() -> None:
        endings.append(recording.ending)
        training.log({"energy": 0.25})

    recording.before_end(fail)
    recording.before_end(log)
    with said() as lines:
        training.end(DIED)
    require(endings == ["failed"], f"it was called when the training ended as {endings}")
    require(told.points("train/energy") == [(1, 0.25)], f"{told.points('train/energy')} was sent")
    require(told.names[-1] == "close", f"the last call is {told.names[-1]}")
    require(any("logged at the end is missing" in line for line in lines), f"it said {lines}")


@rule(
    "TRK-048",
    since=(1, 1),
    needs=["tracking"],
    why="A callback that is added to a trainer in a notebook, between two cells, must not leave a "
    "run that shows as failed, or as running: huggingface/transformers#30333.",
    mend="Leave it to TrackerCallback to end what is over.",
)
def what_it_sees_from_the_middle_on_is_closed_by_how_it_ended(case: Case) -> None:
    """A training that it has seen from the middle on, and whose end it is not told, is closed.

    It is as finished when the next begins, and as failed where an error was raised meanwhile.
    """
    for name, error, status in (("whole", None, "finished"), ("broken", DIED, "failed")):
        callback, told = heard(case, name)
        case.training(callback).step({"loss": 0.5})
        was = getattr(sys, "last_value", None)
        sys.last_value = was if error is None else error
        try:
            training = case.training(callback)
            training.begin()
            training.step({"loss": 0.25})
        finally:
            sys.last_value = was
            if was is None:
                del sys.last_value
        training.end()
        found = told.status
        require(found == [status, "finished"], f"with {error!r} raised, it was closed as {found}")
