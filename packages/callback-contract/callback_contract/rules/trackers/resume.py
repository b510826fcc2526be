"""Resume: a training that is resumed from a checkpoint continues its run, without a seam."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from callback_contract._case import Case
from callback_contract._killed import (
    BEFORE_THE_CHECKPOINT,
    killed_after_a_checkpoint,
    wait_until_stored,
)
from callback_contract._stored import (
    LOSSES,
    Stored,
    comes_true,
    log_steps,
    losses,
    require_curves,
    require_runs,
    same,
    tracker_rule,
    trained,
    warned,
)
from callback_contract._training import DIED, Training
from callback_contract._violation import require

REPLACED = 7.125
"""The loss that a training logs before it dies, and that comes out otherwise when it is resumed."""


class _Cut(NamedTuple):
    training: Training
    states: dict[str, Any]


def _cut(
    case: Case, *after: float, error: BaseException | None = DIED, waits: bool = False
) -> _Cut:
    """Train up to a checkpoint, then a step for each loss of `after`, and end by `error`.

    If it `waits`, the checkpoint is saved when the store has what is before it.
    """
    callback = case.make()
    training = case.training(callback)
    training.begin()
    log_steps(training, *losses(*LOSSES[:2]))
    training.evaluate({"eval_loss": LOSSES[1]})
    if waits:
        wait_until_stored(case, *BEFORE_THE_CHECKPOINT)
    training.save()
    states = case.states_of(callback)
    log_steps(training, *losses(*after))
    training.end(error)
    return _Cut(training, states)


def _resume(case: Case, cut: _Cut, *values: float, ends: bool = True, **more: Any) -> Training:
    """Resume from the checkpoint of step 2 with a new callback, and train a step for each loss."""
    training = case.resumed(case.make(), cut.states, 2, of=cut.training, **more)
    training.begin()
    log_steps(training, *losses(*values))
    training.end(None if ends else DIED)
    return training


def _require_one_run(case: Case, values: Sequence[float]) -> Stored:
    """Require that there is one run, which has these losses from step 1 on."""
    require_runs(case, 1, "a training that was resumed")
    stored = Stored(case)
    stored.require_losses(*values)
    return stored


def _require_finished(case: Case, stored: Stored) -> None:
    if case.claims("status"):
        status = stored.runs[0].status
        require(status == "finished", f"the training was completed, and its run is {status!r}")


@tracker_rule(
    "RES-001",
    needs=["resume"],
    why="A resumed training opens another run, and splits its curve over two "
    "(huggingface/transformers#30563); or its file is written anew, and loses what came before "
    "(roboflow/rf-detr#1321).",
    mend="Return the run's id from state_dict; open that run again, add to it, and close it by how "
    "it ended this time.",
)
def continues_in_its_run(case: Case) -> None:
    """A training that is resumed with the callback's state continues its run, and loses nothing.

    Once it is complete, the run is `finished`, if the store keeps how a training ended.
    """
    _resume(case, _cut(case, LOSSES[2]), *LOSSES[2:4])
    stored = _require_one_run(case, LOSSES[:4])
    stored.require("eval_loss", 2, LOSSES[1])
    _require_finished(case, stored)


@tracker_rule(
    "RES-002",
    needs=["resume"],
    why="What is trained again after a crash is drawn twice: ray-project/ray#29916.",
    mend="Where a value comes out at a step as it did before, do not send it again.",
)
def stores_what_is_repeated_once(case: Case) -> None:
    """What the dead training and the resumed one both log after the checkpoint is stored once.

    This is about equal values, as those of an exact resume are.
    """
    _resume(case, _cut(case, LOSSES[2]), *LOSSES[2:4])
    _require_one_run(case, LOSSES[:4]).require_once("loss", "eval_loss")


@tracker_rule(
    "RES-003",
    needs=["resume"],
    why="A point of a step that the store has is dropped: allenai/tango#152.",
    mend="Send a value again if it differs from the one that was sent for its step.",
)
def stores_what_replaces_another_value(case: Case) -> None:
    """A value that comes out otherwise when training is resumed is stored."""
    _resume(case, _cut(case, REPLACED), *LOSSES[2:4])
    _require_one_run(case, LOSSES[:4])


@tracker_rule(
    "RES-004",
    needs=["resume", "rewinds"],
    why="Points of the dead training stay beside those that replace them: wandb/wandb#6728.",
    mend="Rewind the run to the step that training resumes at before adding to it.",
)
def forgets_what_was_replaced(case: Case) -> None:
    """What the dead training logged after the checkpoint is gone if it came out otherwise."""
    _resume(case, _cut(case, REPLACED, REPLACED + 1), LOSSES[2])
    found = _require_one_run(case, LOSSES[:3]).points("loss")
    left = [(step, value) for step, value in found if same(REPLACED, value) or step > 3]
    require(
        not left,
        f"after the checkpoint of step 2, {REPLACED} and {REPLACED + 1} were logged; the resumed "
        f"training logged {LOSSES[2]!r} and ended; of the former, the store still has {left}",
    )


@tracker_rule(
    "RES-005",
    needs=["resume", "parameters"],
    why="A parameter that has another value on resume is refused: mlflow/mlflow#7152.",
    mend="Send parameters that the store will not change as rejected, and go on.",
)
def changed_arguments_cost_nothing(case: Case) -> None:
    """A training that is resumed with other arguments is stored as any other.

    A new value is stored, or a warning names the argument.
    """
    args = case.arguments(learning_rate=0.5, num_train_epochs=8.0, run_name="another")
    cut = _cut(case, LOSSES[2])
    with warned() as lines:
        _resume(case, cut, *LOSSES[2:4], args=args)
    found = _require_one_run(case, LOSSES[:4]).parameter("learning_rate")
    require(
        same(0.5, found) or "learning_rate" in "\n".join(lines),
        f"learning_rate=0.5 of the resumed training is stored as {found!r}, and no warning names "
        "learning_rate",
    )


@tracker_rule(
    "RES-006",
    why="Not every loop keeps what callbacks want kept: huggingface/transformers#33875.",
    mend="Where no state was loaded, find the run by the output directory, or open another.",
)
def a_resume_without_state_is_stored(case: Case) -> None:
    """A training that is resumed without the callback's state is stored, in whichever run."""
    cut = _cut(case, LOSSES[2])
    training = case.resumed(case.make(), None, 2, of=cut.training)
    training.begin()
    log_steps(training, *losses(*LOSSES[3:5]))
    training.end()
    stored = Stored(case)
    stored.require_losses(*LOSSES[:2])
    stored.require_losses(*LOSSES[3:5], first=3)


@tracker_rule(
    "RES-007",
    needs=["resume"],
    why="What works at the first resume fails at the second: wandb/wandb#7951.",
    mend="Rewind, or leave out what is there, at every resume and not at the first only.",
)
def a_second_resume_is_like_the_first(case: Case) -> None:
    """After two trainings that died, a third one continues their run: all is there, and once."""
    cut = _cut(case, LOSSES[2])
    _resume(case, cut, *LOSSES[2:4], ends=False)
    _resume(case, cut, *LOSSES[2:5])
    _require_one_run(case, LOSSES[:5]).require_once("loss", "eval_loss")


@tracker_rule(
    "RES-008",
    needs=["resume"],
    why="A run that was to be resumed was another one: wandb/wandb#5856.",
    mend="Open the run of the state again even where it was closed as finished.",
)
def a_finished_run_continues(case: Case) -> None:
    """A training that had finished, and is made longer, continues its run."""
    _resume(case, _cut(case, error=None), *LOSSES[2:4])
    _require_one_run(case, LOSSES[:4]).require_once("loss", "eval_loss")


@tracker_rule(
    "RES-009",
    needs=["resume"],
    why="A run that is resumed from an older checkpoint than its last was another one: "
    "wandb/wandb#5856.",
    mend="Take the run from the state, and its step from the state of the training.",
)
def an_older_checkpoint_continues_its_run(case: Case) -> None:
    """A training resumed from an older checkpoint than the last continues its run at that step.

    With `rewinds`, the store then has nothing of the steps after it that was not logged again.
    """
    callback = case.make()
    first = case.training(callback)
    first.begin()
    kept = []
    for step in range(4):
        log_steps(first, {"loss": LOSSES[step]})
        if step % 2:
            first.save()
            kept.append(case.states_of(callback))
    log_steps(first, {"loss": REPLACED})
    first.end(DIED)
    _resume(case, _Cut(first, kept[0]), *LOSSES[2:4])
    stored = _require_one_run(case, LOSSES[:4])
    stored.require_once("loss")
    beyond = [point for point in stored.points("loss") if point[0] > 4]
    require(
        not (beyond and case.claims("rewinds")),
        f"the training that was resumed at step 2 ended at step 4, and the store has {beyond}",
    )


@tracker_rule(
    "RES-010",
    needs=["resume"],
    why="Of a node that is gone there is often no more than the checkpoint, in a bucket: "
    "KempnerInstitute/KempnerForge#19.",
    mend="Return from state_dict all that is needed to open the run; if it is not there, open "
    "another.",
)
def a_checkpoint_alone_is_enough(case: Case) -> None:
    """A training resumed in another `output_dir`, from a checkpoint alone, is stored.

    It adds to the run that it was, or to a run in the other directory, and loses nothing.
    """
    cut = _cut(case, LOSSES[2], waits=True)
    elsewhere = case.folder / "elsewhere"
    elsewhere.mkdir()
    args = case.arguments(output_dir=str(elsewhere))
    _resume(case, cut, *LOSSES[2:4], args=args)
    stored = Stored(case)
    stored.require_losses(*LOSSES[:2])
    if not stored.has("loss", 4, LOSSES[3]):
        with suppress(Exception):  # it need not have a store there
            stored.runs += case.subject.read(elsewhere)
        stored.require_losses(*LOSSES[2:4], first=3)
    else:
        require(len(stored.runs) == 1, f"the store holds {len(stored.runs)} runs of one training")


@tracker_rule(
    "RES-011",
    needs=["resume"],
    why="A run that was killed could not be opened again, or lost what it had: "
    "roboflow/rf-detr#1321.",
    mend="Open a run that nobody has closed as any other: drop half a line at the end of its file, "
    "and take over locks of processes that are gone.",
)
def a_killed_training_continues_its_run(case: Case) -> None:
    """A training whose process was killed after the checkpoint continues its run when resumed."""
    states = killed_after_a_checkpoint(case)
    training = case.resumed(case.make(), states, 2)
    training.begin()
    log_steps(training, *losses(*LOSSES[2:4]))
    training.end()
    comes_true(case, lambda: Stored(case).has("loss", 1, LOSSES[0]))
    stored = _require_one_run(case, LOSSES[:4])
    stored.require_once("loss")
    _require_finished(case, stored)


@tracker_rule(
    "RES-012",
    needs=["resume"],
    why="A store has the runs of weeks; what a resumed training forgets in all of them is lost for "
    "good (wandb/wandb#5856 is about the wrong run).",
    mend="Rewind only the run that is opened again: every query names its id.",
)
def other_runs_stay_as_they_are(case: Case) -> None:
    """The runs before it in the store keep all that they have when a training is resumed."""
    trained(case, *losses(*LOSSES[:5]))
    _resume(case, _cut(case, REPLACED), LOSSES[2], LOSSES[4])
    require_curves(case, [list(LOSSES[:5])])
