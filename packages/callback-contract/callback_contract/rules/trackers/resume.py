"""Resume: a training that resumes from a checkpoint continues its run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from callback_contract._case import Case
from callback_contract._isolation import collected_warnings
from callback_contract._killed_training import (
    POINTS_BEFORE_CHECKPOINT,
    kill_after_checkpoint,
    wait_until_stored,
)
from callback_contract._stored import (
    LOSSES,
    Stored,
    log_steps,
    losses,
    matches,
    require_curves,
    require_runs,
    tracker_rule,
    train,
    wait_for_store,
)
from callback_contract._training import OUT_OF_MEMORY, Training
from callback_contract._violation import require

_resume_rule = partial(tracker_rule, needs=["resume"])

SUPERSEDED = 7.125
"""A loss that a training logs before it dies. The resumed training logs another one instead."""

EVALUATED = 0.4 + 1 / 7
"""The `eval_loss` at step 2. It differs from all losses, so that a store cannot confuse them."""


class _Interrupted(NamedTuple):
    training: Training
    states: dict[str, Any]
    step: int = 2


def _interrupt(
    case: Case, *after: float, error: BaseException | None = OUT_OF_MEMORY, waits: bool = False
) -> _Interrupted:
    """Train two steps, save a checkpoint, train a step for each loss, and end with `error`.

    Args:
        case: The case.
        after: The losses after the checkpoint.
        error: The error that ends the training.
        waits: Whether to wait before the checkpoint until the store has the first steps.
    """
    callback = case.make()
    training = case.begin(callback)
    log_steps(training, *losses(*LOSSES[:2]), evaluates=True, saves=True)
    training.evaluate({"eval_loss": EVALUATED})
    if waits:
        wait_until_stored(case, *POINTS_BEFORE_CHECKPOINT)
    training.save()
    states = case.states_of(callback)
    log_steps(training, *losses(*after))
    training.end(error)
    return _Interrupted(training, states)


def _resume(
    case: Case,
    interrupted: _Interrupted,
    *values: float,
    error: BaseException | None = None,
    saves: bool = False,
    **more: Any,
) -> _Interrupted:
    """Resume with a new callback, train a step for each loss, and end with `error`.

    Args:
        case: The case.
        interrupted: The training that saved the checkpoint.
        values: The losses.
        error: The error that ends the training.
        saves: Whether to save a checkpoint after the last step.
        more: Further arguments of `Case.resume`.
    """
    training, states, step = interrupted
    callback = case.make()
    resumed = case.resume(callback, states, step, interrupted=training, **more)
    resumed.begin()
    log_steps(resumed, *losses(*values), saves=saves)
    if saves:
        resumed.save()
        states = case.states_of(callback)
    resumed.end(error)
    return _Interrupted(resumed, states, resumed.state.global_step)


def _require_one_run(case: Case, values: Sequence[float]) -> Stored:
    """Require that the store has one run, with these losses from step 1 on."""
    require_runs(case, 1, "a training that was resumed")
    stored = Stored(case)
    last = len(values)
    require(
        stored.has("loss", 1, values[0]) or not stored.has("loss", last, values[-1]),
        f"the store has the loss of step {last}, which the resumed training logged, but not that "
        f"of step 1: {stored.points('loss')[:12]}",
        "when a training resumes, the earlier part of its run is lost",
    )
    stored.require_losses(*values)
    return stored


def _require_finished(case: Case, stored: Stored) -> None:
    if case.claims("status"):
        status = stored.runs[0].status
        require(status == "finished", f"the training was completed, but its run is {status!r}")


@_resume_rule(
    "RES-001",
    why="A resumed training opens another run, which splits its curve "
    "(huggingface/transformers#30563). Or it overwrites its file and loses the earlier part "
    "(roboflow/rf-detr#1321).",
    fix="Return the run's id from state_dict. Reopen this run, append to it, and close it with "
    "the new status.",
)
def continues_its_run(case: Case) -> None:
    """A training that resumes with the callback's state continues its run and loses nothing.

    It keeps its points and its arguments. At the end, it is `finished` if the store keeps a status.
    """
    interrupted = _interrupt(case, LOSSES[2])
    before = Stored(case)
    _resume(case, interrupted, *LOSSES[2:4])
    stored = _require_one_run(case, LOSSES[:4])
    stored.require_arguments_of(before)
    stored.require("eval_loss", 2, EVALUATED)
    _require_finished(case, stored)


@_resume_rule(
    "RES-002",
    why="Steps that are repeated after a crash appear twice: ray-project/ray#29916.",
    fix="Do not send a value again if the run has the same value at this step.",
)
def stores_repeated_values_once(case: Case) -> None:
    """A value is stored once if the dead training and the resumed one both log it.

    The rule uses equal values, as in an exact resume.
    """
    _resume(case, _interrupt(case, LOSSES[2]), *LOSSES[2:4])
    _require_one_run(case, LOSSES[:4]).require_once("loss", "eval_loss")


@_resume_rule(
    "RES-003",
    why="A store drops a point if it already has one at this step: allenai/tango#152.",
    fix="Send a value again if it differs from the one that was sent for its step.",
)
def stores_changed_values(case: Case) -> None:
    """If the resumed training logs another value at a step, that value is stored."""
    _resume(case, _interrupt(case, SUPERSEDED), *LOSSES[2:4])
    _require_one_run(case, LOSSES[:4])


@tracker_rule(
    "RES-004",
    needs=["resume", "rewinds"],
    why="Points of the dead training remain beside those that supersede them: wandb/wandb#6728.",
    fix="Rewind the run to the step of the checkpoint before appending to it.",
)
def removes_superseded_values(case: Case) -> None:
    """Values that the dead training logged after the checkpoint are removed.

    A value may remain if the resumed training logs the same value at this step.
    """
    _resume(case, _interrupt(case, SUPERSEDED, SUPERSEDED + 1), LOSSES[2])
    found = _require_one_run(case, LOSSES[:3]).points("loss")
    left = [(step, value) for step, value in found if matches(SUPERSEDED, value) or step > 3]
    require(
        not left,
        f"after the checkpoint of step 2, the dead training logged {SUPERSEDED} and "
        f"{SUPERSEDED + 1}; the resumed training logged only {LOSSES[2]!r}; the store still has "
        f"{left}",
    )


@tracker_rule(
    "RES-005",
    needs=["resume", "parameters"],
    why="A store rejects a parameter whose value changed on resume: mlflow/mlflow#7152.",
    fix="Report parameters that the store does not change as rejected, and continue.",
)
def changed_arguments_cost_nothing(case: Case) -> None:
    """A training that resumes with other arguments is stored like any other.

    The store has the new value of an argument, or a warning names the argument.
    """
    args = case.arguments(learning_rate=0.5, num_train_epochs=8.0, run_name="another")
    interrupted = _interrupt(case, LOSSES[2])
    with collected_warnings() as lines:
        _resume(case, interrupted, *LOSSES[2:4], args=args)
    found = _require_one_run(case, LOSSES[:4]).parameter("learning_rate")
    require(
        matches(0.5, found) or "learning_rate" in "\n".join(lines),
        f"learning_rate=0.5 of the resumed training is stored as {found!r}, and no warning names "
        "it",
    )


@tracker_rule(
    "RES-006",
    why="Some loops do not save the state of callbacks: huggingface/transformers#33875.",
    fix="If no state was loaded, find the run by the output directory, or open another one.",
)
def a_resume_without_a_state_is_stored(case: Case) -> None:
    """A training that resumes without the callback's state is stored, in any run."""
    training = _interrupt(case, LOSSES[2]).training
    resumed = case.resume(case.make(), None, 2, interrupted=training)
    resumed.begin()
    log_steps(resumed, *losses(*LOSSES[3:5]))
    resumed.end()
    stored = Stored(case)
    stored.require_losses(*LOSSES[:2])
    stored.require_losses(*LOSSES[3:5], first=3)


@_resume_rule(
    "RES-007",
    why="The first resume worked, and the second failed: wandb/wandb#7951.",
    fix="Rewind or skip repeated values at every resume, not only at the first.",
)
def a_second_resume_equals_the_first(case: Case) -> None:
    """After two trainings that died, a third one continues their run. Each point is stored once."""
    interrupted = _interrupt(case, LOSSES[2])
    _resume(case, interrupted, *LOSSES[2:4], error=OUT_OF_MEMORY)
    _resume(case, interrupted, *LOSSES[2:5])
    _require_one_run(case, LOSSES[:5]).require_once("loss", "eval_loss")


@_resume_rule(
    "RES-008",
    why="A resumed training continued the wrong run: wandb/wandb#5856.",
    fix="Reopen the run of the state even if it was closed as finished.",
)
def a_finished_run_continues(case: Case) -> None:
    """A finished training that is extended continues its run."""
    _resume(case, _interrupt(case, error=None), *LOSSES[2:4])
    _require_one_run(case, LOSSES[:4]).require_once("loss", "eval_loss")


@_resume_rule(
    "RES-009",
    why="A training that resumed from an older checkpoint continued the wrong run: "
    "wandb/wandb#5856.",
    fix="Take the run from the callback's state, and the step from the training's state.",
)
def an_older_checkpoint_continues_its_run(case: Case) -> None:
    """A training that resumes from an older checkpoint continues its run at that step.

    With `rewinds`, the store then has only those later steps that were logged again.
    """
    callback = case.make()
    first = case.begin(callback)
    states = []
    for step in range(4):
        log_steps(first, {"loss": LOSSES[step]}, saves=step % 2 == 1)
        if step % 2:
            first.save()
            states.append(case.states_of(callback))
    log_steps(first, {"loss": SUPERSEDED})
    first.end(OUT_OF_MEMORY)
    _resume(case, _Interrupted(first, states[0]), *LOSSES[2:4])
    stored = _require_one_run(case, LOSSES[:4])
    stored.require_once("loss")
    beyond = [point for point in stored.points("loss") if point[0] > 4]
    require(
        not (beyond and case.claims("rewinds")),
        f"the training that resumed at step 2 ended at step 4, but the store has {beyond}",
    )


@_resume_rule(
    "RES-010",
    why="When a node is lost, often only the checkpoint in a bucket remains: "
    "KempnerInstitute/KempnerForge#19.",
    fix="Return everything that reopens the run from state_dict. If the run does not exist, open "
    "another one.",
)
def a_checkpoint_alone_is_enough(case: Case) -> None:
    """A training that resumes from a checkpoint alone, in another `output_dir`, is stored.

    It continues its run, or it stores a run of its own. Either way, nothing is lost.
    """
    interrupted = _interrupt(case, LOSSES[2], waits=True)
    other = case.folder / "elsewhere"
    other.mkdir()
    _resume(case, interrupted, *LOSSES[2:4], args=case.arguments(output_dir=str(other)))
    stored = Stored(case)
    stored.require_losses(*LOSSES[:2])
    if stored.has("loss", 4, LOSSES[3]):
        found = len(case.runs())
        require(found <= 2, f"the store has {found} runs of a training and its continuation")
    else:
        stored.runs += case.readable_runs(other)
        stored.require_losses(*LOSSES[2:4], first=3)


@_resume_rule(
    "RES-011",
    why="A run whose process was killed could not be reopened, or lost its points: "
    "roboflow/rf-detr#1321.",
    fix="Reopen a run that was never closed like any other. Drop an incomplete last line of its "
    "file, and take over locks of dead processes.",
)
def a_killed_training_continues_its_run(case: Case) -> None:
    """A training whose process was killed after the checkpoint continues its run."""
    states = kill_after_checkpoint(case)
    training = case.resume(case.make(), states, 2)
    training.begin()
    log_steps(training, *losses(*LOSSES[2:4]))
    training.end()
    wait_for_store(case, lambda: Stored(case).has("loss", 1, LOSSES[0]))
    stored = _require_one_run(case, LOSSES[:4])
    stored.require_once("loss")
    _require_finished(case, stored)


@_resume_rule(
    "RES-012",
    why="A store has the runs of weeks. If a resumed training rewinds all of them, their points "
    "are lost permanently (wandb/wandb#5856 reports that a wrong one was resumed).",
    fix="Rewind only the run that is reopened: every query must name its id.",
)
def other_runs_do_not_change(case: Case) -> None:
    """When a training resumes, earlier runs in the store keep all their points."""
    train(case, *losses(*LOSSES[:5]))
    _resume(case, _interrupt(case, SUPERSEDED), LOSSES[2], LOSSES[4])
    require_runs(case, 2, "a training and one that was resumed")
    require_curves(case, [list(LOSSES[:5])])


@_resume_rule(
    "RES-013",
    why="A resumed training saved a state without the id of its run, so the next one that resumed "
    "opened another run. Long trainings are interrupted more than once.",
    fix="Return the same state from state_dict, whether the training opened the run or reopened "
    "it.",
)
def continues_a_resumed_training(case: Case) -> None:
    """A training that resumes from a checkpoint of a resumed training continues the same run."""
    first = _interrupt(case)
    second = _resume(case, first, *LOSSES[2:4], error=OUT_OF_MEMORY, saves=True)
    _resume(case, second, LOSSES[4])
    _require_one_run(case, LOSSES[:5]).require_once("loss")
