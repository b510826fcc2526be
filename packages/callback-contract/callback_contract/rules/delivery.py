"""Delivery: all that is logged is in the store, once and in order, and in the run it belongs to."""

from __future__ import annotations

import shutil

from callback_contract._case import Case, Training
from callback_contract._rule import require, rule
from callback_contract._stored import Stored, comes_true, require_stored
from callback_core import TrainerState


def _trained(case: Case, *losses: float) -> Training:
    """Train a step for each of `losses`, to the end, and return the training."""
    training = case.training()
    training.begin()
    for loss in losses:
        training.step({"loss": loss})
    training.end()
    return training


@rule(
    "DEL-001",
    of_trackers=True,
    why="Scalars are missing unless one sleeps and flushes by hand: clearml/clearml#766.",
    mend="Send each log with the step of the state, and flush what is left in on_train_end.",
)
def stores_every_point_with_its_step(case: Case) -> None:
    """When `on_train_end` returns, the store holds every value that was logged, at its step."""
    training = case.training()
    training.begin()
    steps = (1, 2, 3, 4, 5001, 5002, 5003)
    for step in steps:
        training.state.global_step = step - 1
        training.step({"loss": step / 8})
    training.end()
    stored = Stored(case)
    lost = [step for step in steps if not stored.has("loss", step, step / 8)]
    require(not lost, f"the store lacks the loss of the steps {lost}: {stored.points('loss')}")


@rule(
    "DEL-002",
    of_trackers=True,
    why="A store that takes no step that goes backwards drops what comes late: allenai/tango#152.",
    mend="Send from one queue, in the order of the events, and not from several threads.",
)
def stores_points_in_their_order(case: Case) -> None:
    """The store has the points of a curve in the order in which they were logged."""
    _trained(case, 0.125, 0.25, 0.375, 0.5)
    steps = [step for step, _ in Stored(case).points("loss")]
    steps = list(dict.fromkeys(steps))  # one that is there twice is another rule's matter
    require(steps == sorted(steps), f"the steps are stored in the order {steps}")


@rule(
    "DEL-003",
    of_trackers=True,
    why="What is sent again though it had arrived draws a curve twice: ray-project/ray#29916.",
    mend="Note what has been sent as soon as it is, and send from there on.",
)
def stores_each_point_once(case: Case) -> None:
    """What is logged once is stored once."""
    _trained(case, 0.125, 0.25, 0.375)
    steps = [step for step, _ in Stored(case).points("loss")]
    require(len(steps) == len(set(steps)), f"the steps {steps} hold some twice")


@rule(
    "DEL-004",
    of_trackers=True,
    why="A second training with one callback draws over the first: huggingface/transformers#9210.",
    mend="Forget the run in on_train_end, and open another in on_train_begin.",
)
def a_second_training_is_another_run(case: Case) -> None:
    """A callback that is used for a second training stores it as a run of its own."""
    callback = case.make()
    for value in (0.25, 0.75):
        training = case.training(callback)
        training.begin()
        training.step({"loss": value})
        training.end()
    runs = Stored(case).runs
    require(len(runs) == 2, f"the store holds {len(runs)} runs of two trainings")


@rule(
    "DEL-005",
    of_trackers=True,
    why="After the end of training nothing could be logged any more: clearml/clearml#1119.",
    mend="Open the run again in on_log where it has been closed, and close it after that.",
)
def stores_an_evaluation_after_the_end(case: Case) -> None:
    """What is logged after `on_train_end`, such as a last evaluation, is stored."""
    training = _trained(case, 0.5)
    training.evaluate({"eval_late": 0.375})
    require(
        comes_true(case, lambda: Stored(case).has("eval_late", 1, 0.375)),
        "what was evaluated after the end of training is not stored",
    )


@rule(
    "DEL-006",
    of_trackers=True,
    why="An evaluation after training opens a stray run: comet-ml/issue-tracking#536.",
    mend="Keep the id of the run that was closed last, and open that one again.",
)
def an_evaluation_after_the_end_belongs_to_its_run(case: Case) -> None:
    """What is logged after `on_train_end` goes to the run of that training, and to no other."""
    training = _trained(case, 0.5)
    training.evaluate({"eval_late": 0.375})
    comes_true(case, lambda: Stored(case).has("eval_late", 1, 0.375))
    found = len(Stored(case).runs)
    require(found == 1, f"the store holds {found} runs of a training and an evaluation after it")


@rule(
    "DEL-007",
    of_trackers=True,
    why="Trainer.evaluate without a training raised or stored nothing: "
    "huggingface/transformers#32689.",
    mend="Open a run in on_log where none is open.",
)
def stores_an_evaluation_without_a_training(case: Case) -> None:
    """What is logged without any training is stored."""
    case.training(state=TrainerState(epoch=0.0)).evaluate({"eval_alone": 0.375})
    require(
        comes_true(case, lambda: Stored(case).has("eval_alone", 0, 0.375)),
        "what was evaluated without a training is not stored",
    )


@rule(
    "DEL-008",
    of_trackers=True,
    needs=["parameters"],
    why="Runs cannot be compared where arguments are missing: huggingface/transformers#11342.",
    mend="Send args.to_dict() when training begins.",
)
def stores_the_arguments(case: Case) -> None:
    """The store holds the arguments of the training."""
    training = case.training(args=case.arguments(learning_rate=0.0625))
    training.begin()
    training.step({"loss": 0.5})
    training.end()
    found = Stored(case).parameter("learning_rate")
    require(found == "0.0625", f"learning_rate is stored as {found!r} and not as '0.0625'")


@rule(
    "DEL-009",
    of_trackers=True,
    why="What sums a training up is logged last, and was what got lost: clearml/clearml#766.",
    mend="Send what is logged right before on_train_end as well; in a summary, or as points.",
)
def stores_what_a_training_has_one_of(case: Case) -> None:
    """Totals that are logged at the end are stored, be it in the run's summary or as points."""
    training = case.training()
    training.begin()
    training.step({"loss": 0.5})
    training.fire("on_step_begin")
    training.state.global_step += 1
    training.log({"train_runtime": 12.5, "train_loss": 0.375})
    training.end()
    stored = Stored(case)
    for name, value in (("train_runtime", 12.5), ("train_loss", 0.375)):
        in_summary = any(
            kept == value
            for run in stored.runs
            for title, kept in run.summary.items()
            if title.endswith((name, name.removeprefix("train_")))
        )
        require(in_summary or stored.has_under_any_name(2, value), f"{name!r} is not stored")


@rule(
    "DEL-010",
    of_trackers=True,
    why="A request with more than 1,000 values is refused as a whole: mlflow/mlflow#6049.",
    mend="Send in batches of as many points as the store takes.",
)
def stores_more_than_a_batch(case: Case) -> None:
    """A log of 1,200 values is stored whole."""
    training = case.training()
    training.begin()
    training.step({f"value_{number}": number / 8 for number in range(1200)})
    training.end()
    stored = Stored(case)
    found = sum(
        len(run.points.get(case.subject.stored_name(f"value_{number}"), ()))
        for run in stored.runs
        for number in range(1200)
    )
    require(found >= 1200, f"of 1,200 values that were logged at once, {found} are stored")


@rule(
    "DEL-011",
    of_trackers=True,
    why="A log at a step that the store has is dropped: allenai/tango#152.",
    mend="Send all that is logged at a step, under the step of the state.",
)
def stores_several_logs_of_one_step(case: Case) -> None:
    """What is logged at one step in several logs is stored, all of it."""
    training = case.training()
    training.begin()
    training.step({"loss": 0.5})
    training.evaluate({"eval_loss": 0.75})
    training.log({"note": 0.25})
    training.end()
    stored = Stored(case)
    expected = {"loss": 0.5, "eval_loss": 0.75, "note": 0.25}
    lost = [name for name, value in expected.items() if not stored.has(name, 1, value)]
    require(not lost, f"of three logs at step 1, the store lacks {lost}")


@rule(
    "DEL-012",
    of_trackers=True,
    needs=["files"],
    why="An upload races with the loop that deletes the checkpoint: axolotl-ai-cloud/axolotl#2630.",
    mend="Take hard links, or a copy, of the checkpoint within on_save.",
)
def keeps_a_checkpoint_that_is_deleted(case: Case) -> None:
    """A checkpoint is stored whole, even where the loop deletes it right after `on_save`."""
    training = case.training()
    training.begin()
    training.step({"loss": 0.5})
    shutil.rmtree(training.save())
    training.end()
    files = {file for run in Stored(case).runs for file in run.files}
    for name in ("model.safetensors", "trainer_state.json"):
        require(
            any(file.endswith(f"checkpoint-1/{name}") for file in files),
            f"{name} of a checkpoint that was deleted after on_save is not among {sorted(files)}",
        )


@rule(
    "DEL-013",
    of_trackers=True,
    why="A run that is current in the process is anybody's: mlflow/mlflow#3592.",
    mend="Say in each call which run is meant, and use no run that is current in the process.",
)
def trainings_at_once_do_not_mix(case: Case) -> None:
    """Two trainings that take turns in one process are two runs, each with its own points."""
    trainings = [case.training(case.make()) for _ in range(2)]
    for training in trainings:
        training.begin()
        training.fire("on_epoch_begin")
    for step in (1, 2):
        for number, training in enumerate(trainings):
            training.step({"loss": step / 8 + number})
    for training in trainings:
        training.end()
    title = case.subject.stored_name("loss")
    curves = [sorted({value for _, value in run.points.get(title, ())}) for run in case.runs()]
    require(
        sorted(curves) == [[0.125, 0.25], [1.125, 1.25]],
        f"the runs of two trainings that took turns hold the values {curves}",
    )


class _Accumulator:
    """A scalar of no dimensions, as numpy and torch have them, which changes in place."""

    shape = ()

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value

    def item(self) -> float:
        return self.value


@rule(
    "DEL-014",
    of_trackers=True,
    why="Values that are read later are read as they are by then: AI-Hypercomputer/maxtext#3840.",
    mend="Make values plain numbers within on_log, before they go to another thread.",
)
def stores_values_as_they_were_logged(case: Case) -> None:
    """A scalar that the loop goes on to change is stored as it was when it was logged."""
    accumulator = _Accumulator(0.25)
    training = case.training()
    training.begin()
    training.step({"loss": 0.5, "accumulated": accumulator})
    accumulator.value = 8.0
    training.end()
    found = Stored(case).points("accumulated")
    require(all(value != 8.0 for _, value in found), f"0.25 at step 1 is stored as {found}")
    require_stored(case, "loss", 1, 0.5)
