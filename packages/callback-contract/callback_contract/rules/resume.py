"""Resume: a training that goes on from a checkpoint goes on in its run, without a seam."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from callback_contract._case import DIED, Arguments, Case, Training
from callback_contract._rule import require, rule
from callback_contract._stored import Stored
from callback_contract._subject import RecordedRun
from callback_core import TrainerState


def _until_it_dies(case: Case, after: float = 0.375) -> dict[str, Any]:
    """Train two steps and save, then a third, and die; return the callback's state when saving.

    Args:
        case: The case.
        after: What is logged at the third step.
    """
    callback = case.make()
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.125})
    training.step({"loss": 0.25})
    training.save()
    state = _state(callback)
    training.step({"loss": after})
    training.end(DIED)
    return state


def _state(callback: Any) -> dict[str, Any]:
    """Return the state of `callback` as a checkpoint gives it back."""
    state: dict[str, Any] = json.loads(json.dumps(callback.state_dict()))
    return state


def _resumed(
    case: Case, state: Mapping[str, Any] | None, step: int = 2, args: Arguments | None = None
) -> Training:
    """Return a training that goes on at `step`, with a new callback that takes over `state`."""
    callback = case.make()
    if state is not None:
        callback.load_state_dict(dict(state))
    resumed = TrainerState(global_step=step, epoch=step / 2, max_steps=4, num_train_epochs=2)
    return case.training(callback, args=args, state=resumed)


def _goes_on(training: Training, value: float = 0.375) -> None:
    """Train two steps more, and end."""
    training.begin()
    training.step({"loss": value})
    training.step({"loss": 0.5})
    training.end()


def _at(case: Case, run: RecordedRun, step: int) -> list[float]:
    """Return the losses that `run` has of a step."""
    points = run.points.get(case.subject.stored_name("loss"), ())
    return [value for at, value in points if at == step]


@rule(
    "RES-001",
    of_trackers=True,
    needs=["resume"],
    why="A resumed training opens another run, and its curve is in two: "
    "huggingface/transformers#30563.",
    mend="Return the run's id from state_dict, and open that run where it was loaded.",
)
def goes_on_in_its_run(case: Case) -> None:
    """A training that is resumed with the callback's state goes on in the run that it was."""
    state = _until_it_dies(case)
    _goes_on(_resumed(case, state))
    runs = Stored(case).runs
    require(len(runs) == 1, f"the store holds {len(runs)} runs of a training that was resumed")


@rule(
    "RES-002",
    of_trackers=True,
    needs=["resume"],
    why="A file that is opened anew on resume loses what came before: roboflow/rf-detr#1321.",
    mend="Add to what the run has; forget only what follows the step that training resumes at.",
)
def loses_no_point(case: Case) -> None:
    """What was logged up to the checkpoint, and after resuming from it, is all stored."""
    state = _until_it_dies(case)
    _goes_on(_resumed(case, state))
    stored = Stored(case)
    lost = [step for step in range(1, 5) if not stored.has("loss", step, step / 8)]
    require(not lost, f"the store lacks the loss of the steps {lost}: {stored.points('loss')}")


@rule(
    "RES-003",
    of_trackers=True,
    needs=["resume"],
    why="What is trained again after a crash is drawn twice: ray-project/ray#29916.",
    mend="Where a value comes out at a step as it did before, do not send it again.",
)
def stores_what_is_repeated_once(case: Case) -> None:
    """What the dead training logged after the checkpoint, and the resumed one too, is there once.

    That is where the values are equal, as those of an exact resume are.
    """
    state = _until_it_dies(case)
    _goes_on(_resumed(case, state))
    for run in case.runs():
        found = _at(case, run, 3)
        require(len(found) < 2, f"step 3, which was trained twice, is stored as {found}")


@rule(
    "RES-004",
    of_trackers=True,
    needs=["resume", "rewinds"],
    why="Points of the dead training stay beside those that replace them: wandb/wandb#6728.",
    mend="Rewind the run to the step that training resumes at before adding to it.",
)
def forgets_what_was_replaced(case: Case) -> None:
    """What the dead training logged after the checkpoint is gone where it came out otherwise."""
    state = _until_it_dies(case, after=7.0)
    _goes_on(_resumed(case, state))
    found = _at(case, case.runs()[-1], 3)
    require(7.0 not in found, f"step 3 was 7.0 before the crash and is {found} in the store")


@rule(
    "RES-005",
    of_trackers=True,
    needs=["resume", "status"],
    why="What state a run shows is not the one that its training is in: wandb/wandb#6779.",
    mend="Open the run again as one that runs, and close it with how it ended this time.",
)
def a_failed_run_goes_on(case: Case) -> None:
    """A run that was closed as failed is not failed any more once its training is completed."""
    state = _until_it_dies(case)
    _goes_on(_resumed(case, state))
    statuses = [run.status for run in Stored(case).runs]
    require(statuses[-1:] != ["failed"], "the run of a training that was completed is failed")


@rule(
    "RES-006",
    of_trackers=True,
    needs=["resume", "parameters"],
    why="A parameter that has another value on resume is refused: mlflow/mlflow#7152.",
    mend="Send parameters that the store will not change as rejected, and go on.",
)
def changed_arguments_cost_nothing(case: Case) -> None:
    """A training that is resumed with other arguments goes on, and what it logs is stored."""
    state = _until_it_dies(case)
    args = case.arguments(learning_rate=0.5, num_train_epochs=8.0)
    _goes_on(_resumed(case, state, args=args))
    stored = Stored(case)
    require(stored.has("loss", 4, 0.5), "what was logged with other arguments is not stored")


@rule(
    "RES-007",
    of_trackers=True,
    why="Not every loop keeps what callbacks want kept: huggingface/transformers#33875.",
    mend="Where no state was loaded, find the run by the output directory, or open another.",
)
def goes_on_without_its_state(case: Case) -> None:
    """Where the loop has not kept the callback's state, a resumed training is stored as well."""
    training = case.training()
    training.begin()
    training.step({"loss": 0.125})
    training.save()
    training.end(DIED)
    resumed = _resumed(case, None, step=1)
    resumed.begin()
    resumed.step({"loss": 0.75})
    resumed.end()
    require(Stored(case).has("loss", 2, 0.75), "what was logged after resuming is not stored")


@rule(
    "RES-008",
    of_trackers=True,
    needs=["resume"],
    why="What works at the first resume fails at the second: wandb/wandb#7951.",
    mend="Rewind, or leave out what is there, at every resume and not at the first only.",
)
def stores_what_is_repeated_twice_once(case: Case) -> None:
    """What two trainings logged that died, and a third one again, is stored once."""
    state = _until_it_dies(case)
    second = _resumed(case, state)
    second.begin()
    second.step({"loss": 0.375})
    second.step({"loss": 0.5})
    second.end(DIED)
    _goes_on(_resumed(case, state))
    for run in case.runs():
        found = _at(case, run, 4)
        require(len(found) < 2, f"step 4, which was trained again, is stored as {found}")


@rule(
    "RES-009",
    of_trackers=True,
    needs=["resume"],
    why="A run that was to be resumed was another one: wandb/wandb#5856.",
    mend="Open the run of the state again even where it was closed as finished.",
)
def a_finished_run_goes_on(case: Case) -> None:
    """A training that had finished, and is made longer, goes on in the run that it was."""
    callback = case.make()
    training = case.training(callback)
    training.begin()
    training.step({"loss": 0.125})
    training.step({"loss": 0.25})
    training.save()
    state = _state(callback)
    training.end()
    _goes_on(_resumed(case, state))
    runs = Stored(case).runs
    require(len(runs) == 1, f"the store holds {len(runs)} runs of a training that was made longer")
