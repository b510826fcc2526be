"""Delivery: the store has everything that was logged, once, in order and in the right run."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._isolation import collected_warnings
from callback_contract._killed_training import deliver_pending, kill_after_checkpoint
from callback_contract._stored import (
    LOSSES,
    Scalar,
    Stored,
    log_steps,
    losses,
    matches,
    parameter_of,
    require_curves,
    require_eventually,
    require_runs,
    tracker_rule,
    train,
    train_and_read,
    wait_for,
    wait_for_store,
)
from callback_contract._subject import RecordedRun
from callback_contract._violation import require

FALSE_ARGUMENTS: Final[dict[str, Any]] = {
    "uses_cache": False,
    "attention_dropout": 0.0,
    "first_layer": 0,
    "name_prefix": "",
    "teacher": None,
}
"""Arguments whose values are false, but are values."""

FILES = ("model.safetensors", "trainer_state.json", "nested/part-1.bin")


@tracker_rule(
    "DEL-001",
    why="Scalars are missing unless the user sleeps and flushes (clearml/clearml#766). Rounded to "
    "four decimals, a loss of 0.00002 is 0 (axolotl-ai-cloud/axolotl#3320).",
    fix="Send each log unrounded with state.global_step, and flush in on_train_end.",
)
def stores_every_point_at_its_step(case: Case) -> None:
    """When `on_train_end` returns, the store has every logged value at its step.

    Steps may be far apart, and values may have many digits.
    """
    training = case.begin(max_steps=10_000_000)
    steps = (1, 2, 3, 5001, 5002, 10_000_000)
    for step, loss in zip(steps, LOSSES, strict=True):
        training.state.global_step = step - 1
        training.step({"loss": loss})
    training.end()
    Stored(case).require_all_of(training)


@tracker_rule(
    "DEL-002",
    why="A table with the columns of the first log lacks those of the evaluations "
    "(ErikHartman/bopep#40). The totals come last, and get lost (clearml/clearml#766).",
    fix="Accept any names in each log, whatever earlier logs contained.",
)
def stores_all_of_an_ordinary_training(case: Case) -> None:
    """The store has all logs of an ordinary training: steps, evaluations and totals.

    Totals such as `train_runtime` may be in the run's summary.
    """
    training = case.training(max_steps=6)
    training.run(save=True)
    Stored(case).require_all_of(training)


@tracker_rule(
    "DEL-003",
    why="A point that is sent again after it arrived appears twice (ray-project/ray#29916). A "
    "store that requires increasing steps drops late points (allenai/tango#152).",
    fix="Log in on_log only, because on_evaluate repeats the same values. Send from one queue, "
    "and record what has been sent.",
)
def stores_each_point_once_and_in_order(case: Case) -> None:
    """The store has each point once, including evaluations, and each curve in order of steps."""
    training = case.training()
    training.run()
    logs = training.state.log_history
    names = sorted({name for log in logs for name in log} - {"epoch", "step"})
    stored = Stored(case)
    stored.require_once(*names)
    stored.require_ordered(*names)


@tracker_rule(
    "DEL-004",
    why="A second training with the same callback is drawn over the first: "
    "huggingface/transformers#9210.",
    fix="Reset the run in on_train_end, and open another one in on_train_begin.",
)
def a_second_training_is_another_run(case: Case) -> None:
    """A second training with the same callback is stored as another run, from step 0 on."""
    callback = case.make()
    for loss in LOSSES[:2]:
        training = case.begin(callback)
        training.log({"start": loss})
        log_steps(training, {"loss": loss})
        training.end()
    require_runs(case, 2, "two trainings with one callback")
    require_curves(case, [[loss] for loss in LOSSES[:2]])
    runs = [Stored(case, [run]) for run in case.runs()]
    for loss in LOSSES[:2]:
        require(
            any(run.has("start", 0, loss) for run in runs),
            f"a training logged start={loss:g} at step 0, but the runs have "
            f"{[run.points('start') for run in runs]}",
        )


@tracker_rule(
    "DEL-005",
    why="After the end of a training, nothing could be logged (clearml/clearml#1119), or a stray "
    "run was opened for it (comet-ml/issue-tracking#536).",
    fix="Keep the id of the last closed run, and reopen this run in on_log. Keep what it has.",
)
def stores_an_evaluation_after_the_end(case: Case) -> None:
    """Logs after `on_train_end`, such as a final evaluation, are stored in the same run.

    The run keeps its arguments.
    """
    training = train(case, {"loss": LOSSES[0]})
    before = Stored(case)
    for value in LOSSES[1:3]:
        training.state.global_step += 1
        training.evaluate({"eval_late": value})
    for step, value in enumerate(LOSSES[1:3], 2):
        require_eventually(case, "eval_late", step, value)
    require_runs(case, 1, "a training and the evaluations after it")
    Stored(case).require_arguments_of(before)


@tracker_rule(
    "DEL-006",
    why="Trainer.evaluate without a training raised an error or stored nothing: "
    "huggingface/transformers#32689.",
    fix="In on_log, open a run if none is open.",
)
def stores_an_evaluation_without_a_training(case: Case) -> None:
    """Logs without any training are stored."""
    training = case.training()
    training.fire("on_init_end")
    training.evaluate({"eval_loss": LOSSES[0]})
    require_eventually(case, "eval_loss", 0, LOSSES[0])


@tracker_rule(
    "DEL-007",
    needs=["parameters"],
    why="Users cannot compare runs whose arguments are missing: huggingface/transformers#11342. A "
    "callback that leaves out what is not set, with `if value`, leaves out False and 0, too.",
    fix="Send args.to_dict() when a training begins. Leave out values that are None at most.",
)
def stores_the_arguments(case: Case) -> None:
    """Each run has the arguments of its own training, also those that are False, 0 or empty.

    They may be stored as strings. An argument that is `None` may be left out.
    """
    rates = (2e-5, 0.123456789)
    for rate in rates:
        args = case.arguments(learning_rate=rate, seed=4711, more=dict(FALSE_ARGUMENTS))
        train(case, {"loss": 0.5}, args=args)
    require_runs(case, 2, "two trainings")
    for run, rate in zip(case.runs(), rates, strict=True):
        for name, value in {"learning_rate": rate, "seed": 4711, **FALSE_ARGUMENTS}.items():
            found = parameter_of(run.parameters, name)
            how = "is not stored" if found is None else f"is stored as {found!r}"
            require(_is_stored_as(value, found), f"{name}={value!r} {how} in {run.id!r}")


@tracker_rule(
    "DEL-008",
    why="A server rejects a request with more than 1,000 values as a whole: mlflow/mlflow#6049.",
    fix="Send batches of at most as many points as the store accepts.",
)
def stores_more_than_a_batch(case: Case) -> None:
    """The store has all values of a log with 1,200 values."""
    values = {f"value_{number}": (number + 1) / 7 for number in range(1200)}
    stored, _ = train_and_read(case, values)
    lost = [name for name, value in values.items() if not stored.has(name, 1, value)]
    if lost:
        stored.require("value_0", 1, values["value_0"])
    require(not lost, f"of 1,200 values in one log, {len(lost)} are missing: {lost[:3]} …")


@tracker_rule(
    "DEL-009",
    why="The metrics of a second data set overwrote those of the first "
    "(neuralmagic/sparseml#653). A second log of the same step was dropped (allenai/tango#152).",
    fix="Store the whole name. If the store does not accept it, warn of each name that is left "
    "out.",
)
def different_names_share_no_curve(case: Case) -> None:
    """Values with different names in several logs of one step are in different curves.

    Long names may differ only at their ends, and short ones only in case. A value may be left out
    if a warning names it, or if its name has more than 1,000 characters.
    """
    long = "accuracy_of_" * 166
    names = [f"{long}en", "loss", f"{long}fr", "eval_loss"]  # a log that fails is between others
    names += ["eval_a_loss", "eval_b_loss", "test_loss", "a_loss", "b/loss"]
    names += ["c.loss", "loss_1", "loss_10", "c_loss", "b loss", "f1", "F1"]
    names += [f"grad_norm_of_layers_0_self_attention_{part}_proj" for part in "qkv"]
    names += [f"{'accuracy_of_' * 10}{language}" for language in ("en", "fr")]
    values = {name: 0.1 + number / 7 for number, name in enumerate(names)}
    with collected_warnings() as lines:
        training = case.begin()
        for name, value in values.items():
            (training.evaluate if name.startswith("eval_") else training.log)({name: value})
        training.end()
    stored, warnings = Stored(case), "\n".join(lines)
    curves = {name: set(stored.names_at(0, value)) for name, value in values.items()}
    for number, name in enumerate(names):
        for other in names[number + 1 :]:
            shared = curves[name] & curves[other]
            require(
                not shared or repr(name) in warnings or other in warnings,
                f"{_shown(name)} and {_shown(other)} were logged at one step; both are in the "
                f"curve {', '.join(map(_shown, shared))}",
            )
        if not curves[name] and name not in warnings and len(name) < 1000:
            stored.require(name, 0, values[name])


@tracker_rule(
    "DEL-010",
    why="Any code in the process may change its current run: mlflow/mlflow#3592.",
    fix="Name the run in each call, and do not use the current run of the process.",
)
def simultaneous_trainings_do_not_mix(case: Case) -> None:
    """Two trainings that alternate in one process are two runs, each with its own points.

    If the store keeps parameters, each run has those of its training.
    """
    trainings = [case.begin(args=case.arguments(seed=number)) for number in range(2)]
    for step in range(3):
        for number, training in enumerate(trainings):
            log_steps(training, {"loss": LOSSES[step] + number})
    for training in trainings:
        training.end()
    require_runs(case, 2, "two trainings that alternate")
    require_curves(case, [[loss + number for loss in LOSSES[:3]] for number in range(2)])
    if case.claims("parameters"):
        for run in (Stored(case, [run]) for run in case.runs()):
            number = int(run.has("loss", 1, LOSSES[0] + 1))
            found = run.parameter("seed")
            require(found == str(number), f"seed={number} of one training is stored as {found}")


@tracker_rule(
    "DEL-011",
    why="A tensor that is read later has a later value: AI-Hypercomputer/maxtext#3840.",
    fix="Convert values to plain numbers in on_log, before another thread gets them.",
)
def stores_values_as_they_were_logged(case: Case) -> None:
    """A scalar that the loop changes later is stored with its value at the time of the log."""
    torch = sys.modules.get("torch")
    scalar = Scalar(LOSSES[0]) if torch is None else torch.tensor(LOSSES[0])
    training = case.begin()
    log_steps(training, {"loss": 0.5, "accumulated": scalar})
    scalar.fill_(8.0)
    training.end()
    found = Stored(case).points("accumulated")
    require(
        all(not matches(8.0, value) for _, value in found),
        f"a scalar of {LOSSES[0]!r}, which became 8.0 after on_log, is stored as {found}",
    )


@tracker_rule(
    "DEL-012",
    why="Logs from before a kill are lost. A training that resumes from the checkpoint does not "
    "log them again: comet-ml/issue-tracking#463.",
    fix="Flush in on_log, or in on_save at the latest. Do not keep points until on_train_end.",
)
def logs_before_a_checkpoint_survive_a_kill(case: Case) -> None:
    """Logs before a checkpoint are stored although the process is killed after it.

    The process is killed in the third step, seconds after the checkpoint of the second.
    """
    kill_after_checkpoint(case)
    deliver_pending(case)
    wait_for_store(case, lambda: Stored(case).has("loss", 2, LOSSES[1]))
    Stored(case).require_losses(*LOSSES[:2])


@tracker_rule(
    "DEL-013",
    needs=["files"],
    why="An upload races with the loop that deletes the checkpoint: axolotl-ai-cloud/axolotl#2630.",
    fix="In on_save, copy the checkpoint or create hard links to its files, also to those in its "
    "directories and whatever their names are.",
)
def stores_checkpoints_that_are_deleted(case: Case) -> None:
    """Each checkpoint is stored completely, even if the loop deletes it right after `on_save`."""
    training = case.begin()
    for number in (2, 4):
        log_steps(training, *losses(*LOSSES[number - 2 : number]), saves=True)
        shutil.rmtree(training.save())
    training.end()
    for number in (2, 4):
        _require_files(case.runs(), f"checkpoint-{number}", FILES)


@tracker_rule(
    "DEL-014",
    needs=["files"],
    why="A loop saves the last step again at its end. An upload that fails in on_save ends the "
    "training: axolotl-ai-cloud/axolotl#2630.",
    fix="Replace an earlier checkpoint of the same step, or store both.",
)
def a_checkpoint_may_be_saved_twice(case: Case) -> None:
    """A checkpoint that is saved twice at one step is stored as it was the second time."""
    training = case.begin()
    log_steps(training, {"loss": 0.5}, saves=True)
    checkpoint = training.save()
    training.log({"between": 0.5})
    wait_for(lambda: Stored(case).has("between", 1, 0.5), 2.0)  # the first upload came before it
    (checkpoint / "added.bin").write_bytes(b"added")
    training.save()
    log_steps(training, {"loss": LOSSES[1]})
    training.end()
    _require_files(case.runs(), "checkpoint-1", [*FILES, "added.bin"])
    Stored(case).require("loss", 2, LOSSES[1])


@tracker_rule(
    "DEL-015",
    needs=["files"],
    why="A callback that joins args.output_dir and the step looks for a trial's checkpoint in the "
    "wrong directory (ultralytics/yolov5#4672).",
    fix="Upload the directory that on_save passes as checkpoint_dir to the run of the trial.",
)
def stores_the_checkpoints_of_trials(case: Case) -> None:
    """The checkpoints of a search, in `run-0` and `run-1`, are in the runs of their trials."""
    callback = case.make()
    for number in range(2):
        training = case.training(callback)
        training.state.is_hyper_param_search, training.state.trial_name = True, f"run-{number}"
        training.begin()
        log_steps(training, {"loss": 0.5}, saves=True)
        training.save(f"run-{number}")
        training.end()
    require_runs(case, 2, "two trials of a search")
    for run in case.runs():
        _require_files([run], "checkpoint-1", FILES)


def _shown(name: str) -> str:
    """Return a name, or only the ends of a long one."""
    return repr(name if len(name) < 200 else f"{name[:40]}…{name[-40:]}")


def _is_stored_as(value: Any, found: str | None) -> bool:
    """Return whether a parameter as a string stands for the value of an argument."""
    if value is None:
        return found is None or found in ("", "None", "none", "null")
    if found is None:
        return False
    if isinstance(value, str):
        return found.strip("\"'") == value
    return matches(value, found) or found.lower() == str(value).lower()


def _require_files(runs: list[RecordedRun], checkpoint: str, names: Iterable[str]) -> None:
    """Require files of a checkpoint, which may have a suffix in the store: `checkpoint-1.2`."""
    files = sorted(file for run in runs for file in run.files)
    for name in names:
        pattern = re.compile(rf"(.*/)?{checkpoint}(\D[^/]*)?/{re.escape(name)}")
        require(
            any(map(pattern.fullmatch, files)),
            f"{checkpoint}/{name} is not among the stored files: {files}",
        )
