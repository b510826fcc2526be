"""Delivery: all that is logged is in the store, once and in order, and in the run it belongs to."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable

from callback_contract._case import Case
from callback_contract._killed import deliver_the_rest, killed_after_a_checkpoint
from callback_contract._stored import (
    LOSSES,
    Stored,
    comes_true,
    in_time,
    log_steps,
    losses,
    parameter_of,
    require_curves,
    require_in_time,
    require_runs,
    same,
    stored_of,
    tracker_rule,
    trained,
    warned,
)
from callback_contract._violation import require

FILES = ("model.safetensors", "trainer_state.json", "nested/part-1.bin")


@tracker_rule(
    "DEL-001",
    why="Scalars are missing unless one sleeps and flushes by hand (clearml/clearml#766); rounded "
    "to four decimals, a loss of 0.00002 is 0 (axolotl-ai-cloud/axolotl#3320).",
    mend="Send each log under state.global_step, unrounded, and flush the rest in on_train_end.",
)
def stores_every_point_at_its_step(case: Case) -> None:
    """When `on_train_end` returns, the store holds every value that was logged, at its step.

    Steps may be far apart, and values need not be round.
    """
    training = case.training(max_steps=10_000_000)
    training.begin()
    steps = (1, 2, 3, 5001, 5002, 10_000_000)
    for step, loss in zip(steps, LOSSES, strict=True):
        training.state.global_step = step - 1
        training.step({"loss": loss})
    training.end()
    Stored(case).require_all_of(training)


@tracker_rule(
    "DEL-002",
    why="A table whose columns are those of the first log has none for the evaluations "
    "(ErikHartman/bopep#40); totals are logged last, and get lost (clearml/clearml#766).",
    mend="Take each log with all its names, whatever names the logs before it had.",
)
def stores_all_of_an_ordinary_training(case: Case) -> None:
    """All that an ordinary training logs is stored: steps, evaluations and the totals at its end.

    Totals such as `train_runtime` may be in the run's summary.
    """
    training = case.training(max_steps=6)
    training.run(save=True)
    Stored(case).require_all_of(training)


@tracker_rule(
    "DEL-003",
    why="What is sent again though it had arrived draws a curve twice (ray-project/ray#29916); a "
    "store that takes no step that goes backwards drops what comes late (allenai/tango#152).",
    mend="Log in on_log only, since on_evaluate brings the same values once more; send from one "
    "queue, and note what has been sent.",
)
def stores_each_point_once_and_in_order(case: Case) -> None:
    """What is logged once is stored once, evaluations too, and each curve in the order of steps."""
    training = case.training(max_steps=8)
    training.run()
    names = {name for log in training.state.log_history for name in log} - {"epoch", "step"}
    stored = Stored(case)
    stored.require_once(*sorted(names))
    for name in sorted(names):
        steps = [step for step, _ in stored.points(name)]
        require(steps == sorted(steps), f"the steps of {name!r} are stored in the order {steps}")


@tracker_rule(
    "DEL-004",
    why="A second training with one callback draws over the first: huggingface/transformers#9210.",
    mend="Forget the run in on_train_end, and open another in on_train_begin.",
)
def a_second_training_is_another_run(case: Case) -> None:
    """A callback that is used for a second training stores it as a run of its own."""
    callback = case.make()
    for loss in LOSSES[:2]:
        trained(case, {"loss": loss}, callback=callback)
    require_runs(case, 2, "two trainings with one callback")
    require_curves(case, [[loss] for loss in LOSSES[:2]])


@tracker_rule(
    "DEL-005",
    why="After the end of training nothing could be logged any more (clearml/clearml#1119), or it "
    "opened a stray run (comet-ml/issue-tracking#536).",
    mend="Keep the id of the run that was closed last; in on_log, open that one again.",
)
def stores_an_evaluation_after_the_end(case: Case) -> None:
    """What is logged after `on_train_end`, such as a last evaluation, is stored in the same run."""
    training = trained(case, {"loss": LOSSES[0]})
    for value in LOSSES[1:3]:
        training.state.global_step += 1
        training.evaluate({"eval_late": value})
    for step, value in enumerate(LOSSES[1:3], 2):
        require_in_time(case, "eval_late", step, value)
    require_runs(case, 1, "a training and the evaluations after it")


@tracker_rule(
    "DEL-006",
    why="Trainer.evaluate without a training raised or stored nothing: "
    "huggingface/transformers#32689.",
    mend="Open a run in on_log where none is open.",
)
def stores_an_evaluation_without_a_training(case: Case) -> None:
    """What is logged without any training is stored."""
    training = case.training()
    training.fire("on_init_end")
    training.evaluate({"eval_loss": LOSSES[0]})
    require_in_time(case, "eval_loss", 0, LOSSES[0])


@tracker_rule(
    "DEL-007",
    needs=["parameters"],
    why="Runs cannot be compared where arguments are missing: huggingface/transformers#11342.",
    mend="Send args.to_dict() when training begins.",
)
def stores_the_arguments(case: Case) -> None:
    """The store holds the arguments of the training, each run its own."""
    for rate in (2e-5, 0.3):
        trained(case, {"loss": 0.5}, args=case.arguments(learning_rate=rate, seed=4711))
    for run, rate in zip(case.runs(), (2e-5, 0.3), strict=False):
        for name, value in (("learning_rate", rate), ("seed", 4711)):
            found = parameter_of(run.parameters, name)
            require(same(value, found), f"{name}={value!r} is stored as {found!r} in {run.id!r}")


@tracker_rule(
    "DEL-008",
    why="A request with more than 1,000 values is refused as a whole: mlflow/mlflow#6049.",
    mend="Send in batches of as many points as the store takes.",
)
def stores_more_than_a_batch(case: Case) -> None:
    """A log of 1,200 values is stored whole."""
    values = {f"value_{number}": (number + 1) / 7 for number in range(1200)}
    stored, _ = stored_of(case, values)
    lost = [name for name, value in values.items() if not stored.has(name, 1, value)]
    if lost:
        stored.require("value_0", 1, values["value_0"])
    require(not lost, f"of 1,200 values in one log, {len(lost)} are missing: {lost[:3]} …")


@tracker_rule(
    "DEL-009",
    why="The metrics of a second data set overwrote those of the first "
    "(neuralmagic/sparseml#653); a second log of a step was dropped (allenai/tango#152).",
    mend="Keep the whole name; where the store takes not all of it, name in a warning what is left "
    "out.",
)
def names_that_differ_share_no_curve(case: Case) -> None:
    """Values of different names in several logs of one step are stored, in different curves.

    Names may be long and differ only at their ends. A warning may name those that are not stored.
    """
    names = ["loss", "eval_loss", "eval_a_loss", "eval_b_loss", "test_loss", "a_loss", "b/loss"]
    names += ["c.loss", "loss_1", "loss_10", "c_loss", "b loss"]
    names += [f"grad_norm_of_layers_0_self_attention_{part}_proj" for part in "qkv"]
    names += [f"{'accuracy_of_' * 10}{language}" for language in ("en", "fr")]
    values = {name: 0.1 + number / 7 for number, name in enumerate(names)}
    with warned() as lines:
        training = case.training()
        training.begin()
        for name, value in values.items():
            (training.evaluate if name.startswith("eval_") else training.log)({name: value})
        training.end()
    stored, named = Stored(case), "\n".join(lines)
    curve_of = {name: set(stored.names_at(0, value)) for name, value in values.items()}
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            shared = curve_of[name] & curve_of[other]
            require(
                not shared or repr(name) in named or other in named,
                f"{name!r} and {other!r} were logged at one step; both are in the curve {shared}",
            )
        require(
            curve_of[name] or name in named,
            f"{name}={values[name]!r} is stored under no name, and no warning names it",
        )


@tracker_rule(
    "DEL-010",
    why="A run that is current in the process is anybody's: mlflow/mlflow#3592.",
    mend="Say in each call which run is meant, and use no run that is current in the process.",
)
def trainings_at_once_do_not_mix(case: Case) -> None:
    """Two trainings that take turns in one process are two runs, each with its own points."""
    trainings = [case.training(case.make()) for _ in range(2)]
    for training in trainings:
        training.begin()
    for step in range(3):
        for number, training in enumerate(trainings):
            log_steps(training, {"loss": LOSSES[step] + number})
    for training in trainings:
        training.end()
    require_curves(case, [[loss + number for loss in LOSSES[:3]] for number in range(2)])


@tracker_rule(
    "DEL-011",
    why="Values that are read later are read as they are by then: AI-Hypercomputer/maxtext#3840.",
    mend="Make values plain numbers within on_log, before they go to another thread.",
)
def stores_values_as_they_were_logged(case: Case) -> None:
    """A scalar that the loop goes on to change is stored as it was when it was logged."""
    accumulator = _Accumulator(LOSSES[0])
    training = case.training()
    training.begin()
    log_steps(training, {"loss": 0.5, "accumulated": accumulator})
    accumulator.value = 8.0
    training.end()
    found = Stored(case).points("accumulated")
    require(
        all(not same(8.0, value) for _, value in found),
        f"a scalar of {LOSSES[0]!r}, which is 8.0 after on_log, is stored as {found}",
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


@tracker_rule(
    "DEL-012",
    why="What was logged before a job was killed is lost with it, and a training that is resumed "
    "from the checkpoint never logs it again: comet-ml/issue-tracking#463.",
    mend="Flush in on_log, or in on_save at the latest; do not keep points until on_train_end.",
)
def what_precedes_a_checkpoint_outlives_a_kill(case: Case) -> None:
    """What was logged before a checkpoint is stored, though its process is killed after it.

    The kill comes at the third step, seconds after the checkpoint of the second.
    """
    killed_after_a_checkpoint(case)
    deliver_the_rest(case)
    comes_true(case, lambda: Stored(case).has("loss", 2, LOSSES[1]))
    Stored(case).require_losses(*LOSSES[:2])


@tracker_rule(
    "DEL-013",
    needs=["files"],
    why="An upload races with the loop that deletes the checkpoint: axolotl-ai-cloud/axolotl#2630.",
    mend="Take hard links, or a copy, of the checkpoint within on_save.",
)
def keeps_checkpoints_that_are_deleted(case: Case) -> None:
    """Each checkpoint is stored whole, also if the loop deletes it right after `on_save`."""
    training = case.training()
    training.begin()
    for number in (2, 4):
        log_steps(training, *losses(*LOSSES[number - 2 : number]))
        shutil.rmtree(training.save())
    training.end()
    for number in (2, 4):
        _require_files(case.runs(), f"checkpoint-{number}", FILES)


@tracker_rule(
    "DEL-014",
    needs=["files"],
    why="A loop saves the last step once more at its end. An upload that fails in on_save ends "
    "the training: axolotl-ai-cloud/axolotl#2630.",
    mend="Let a checkpoint of the same step replace the one before, or stand beside it.",
)
def a_checkpoint_may_be_saved_twice(case: Case) -> None:
    """A checkpoint that is saved twice at one step is stored as it was the second time."""
    training = case.training()
    training.begin()
    log_steps(training, {"loss": 0.5})
    checkpoint = training.save()
    training.log({"between": 0.5})
    in_time(lambda: Stored(case).has("between", 1, 0.5), 2.0)  # what is before it is delivered
    (checkpoint / "added.bin").write_bytes(b"added")
    training.save()
    log_steps(training, {"loss": LOSSES[1]})
    training.end()
    _require_files(case.runs(), "checkpoint-1", [*FILES, "added.bin"])
    Stored(case).require("loss", 2, LOSSES[1])


@tracker_rule(
    "DEL-015",
    needs=["files"],
    why="A callback that joins args.output_dir and the step looks where a search does not save "
    "(ultralytics/yolov5#4672).",
    mend="Upload the directory that on_save names as checkpoint_dir, to the run of the trial.",
)
def keeps_the_checkpoints_of_trials(case: Case) -> None:
    """The checkpoints of a search, in `run-0` and `run-1`, are stored, each in its trial's run."""
    callback = case.make()
    for number in range(2):
        training = case.training(callback)
        training.state.is_hyper_param_search, training.state.trial_name = True, f"run-{number}"
        training.begin()
        log_steps(training, {"loss": 0.5})
        training.save(f"run-{number}")
        training.end()
    require_runs(case, 2, "two trials of a search")
    for run in case.runs():
        _require_files([run], "checkpoint-1", FILES)


def _require_files(runs: Iterable[object], checkpoint: str, names: Iterable[str]) -> None:
    """Require files of a checkpoint; the name of a second one may be longer: `checkpoint-1.2`."""
    files = sorted(file for run in runs for file in getattr(run, "files", ()))
    for name in names:
        wanted = re.compile(rf"(.*/)?{checkpoint}(\D[^/]*)?/{re.escape(name)}")
        require(
            any(map(wanted.fullmatch, files)),
            f"{checkpoint}/{name} is not among the files that are stored: {files}",
        )
