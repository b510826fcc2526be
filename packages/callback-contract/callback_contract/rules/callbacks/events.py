"""Events: a callback handles what loops send, in any order in which they send it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from functools import partial
from itertools import permutations
from typing import Any

from callback_contract._case import Case
from callback_contract._registry import rule
from callback_contract._training import OUT_OF_MEMORY, Training
from callback_core import TrainerState

_event_rule = partial(rule, forbids_errors=True)


@_event_rule(
    "EVT-001",
    why="Newer loops pass more keywords (huggingface/transformers#32385, "
    "huggingface/transformers#33444). A callback without **kwargs then ends the training.",
    fix="End the signature of every event with **kwargs, and ignore unknown keywords.",
)
def accepts_unknown_keywords(case: Case) -> None:
    """Unknown keywords raise no error in any event."""
    case.training(extra={"of_a_newer_loop": object()}).live()


@_event_rule(
    "EVT-002",
    why="A data loader that yields nothing makes an epoch without a step. transformers then "
    "warns and ends the training as usual (transformers 5.23.0, trainer.py).",
    fix="At the end of an epoch or a training, do not rely on an earlier step or log.",
)
def an_epoch_may_have_no_step(case: Case) -> None:
    """An epoch and a training without a step raise no error."""
    training = case.begin()
    training.fire("on_epoch_begin")
    training.fire("on_epoch_end")
    training.finish()
    case.begin().end()


@_event_rule(
    "EVT-003",
    why="eval_on_start evaluates before the first step, when all counters are still 0 "
    "(transformers 4.42).",
    fix="Do not divide by the step, and initialise everything that steps set.",
)
def an_evaluation_may_come_first(case: Case) -> None:
    """An evaluation between `on_train_begin` and the first step raises no error."""
    training = case.begin()
    training.evaluate()
    training.complete()


@_event_rule(
    "EVT-004",
    why="An interrupt may come at any time, even in the first batch. A callback that then fails "
    "hides the cause and leaves its run open (Lightning-AI/pytorch-lightning#12291).",
    fix="In on_exception and on_train_end, use nothing that only a step or an epoch sets.",
)
def a_training_may_die_anywhere(case: Case) -> None:
    """`on_exception` and `on_train_end` raise no error wherever the training dies.

    It may die before it begins, right after it has begun, in a step or in an evaluation.
    """
    for events in (
        (),
        ("on_train_begin",),
        ("on_train_begin", "on_epoch_begin", "on_step_begin"),
        ("on_train_begin", "on_epoch_begin", "on_step_begin", "on_substep_end"),
        ("on_train_begin", "on_epoch_begin", "on_prediction_step"),
    ):
        training = case.training()
        training.fire("on_init_end")
        for event in events:
            training.begin() if event == "on_train_begin" else training.fire(event)
        training.end(OUT_OF_MEMORY)


@_event_rule(
    "EVT-005",
    why="Strategies and callbacks decide independently whether a step logs, evaluates or saves. "
    "A step may be evaluated as the best and never saved (transformers 5.23.0).",
    fix="In an event, use nothing that only another event sets; initialise it before.",
)
def a_step_may_be_followed_by_any_combination(case: Case) -> None:
    """A step raises no error, whatever follows it.

    A log, an evaluation and a checkpoint may follow in any order, or be missing.
    """
    for order in _orders():
        training = case.begin()
        training.fire("on_epoch_begin")
        training.step(evaluates=Training.evaluate in order, saves=Training.save in order)
        for action in order:
            action(training)
        training.fire("on_epoch_end")
        training.end()


@_event_rule(
    "EVT-006",
    why="transformers added on_optimizer_step, on_pre_optimizer_step and on_push_begin in later "
    "versions (huggingface/transformers#31095, huggingface/transformers#33444, "
    "huggingface/transformers#42850), and other loops have events of their own.",
    fix="In __getattr__, raise AttributeError for unknown names.",
)
def ignores_unknown_events(case: Case) -> None:
    """An unknown event raises no error."""
    training = case.training()
    training.fire("on_something_of_a_newer_loop")
    training.run()
    training.fire("on_something_of_a_newer_loop")


@_event_rule(
    "EVT-007",
    why="Not every log has a loss: evaluations, the end of training and other callbacks also log. "
    "They may log a count, a text or NaN (huggingface/transformers#4883). The log at the end of an "
    "epoch may follow that of its last step (huggingface/transformers#10858).",
    fix="Read logs with `.get`, and format a value only if it is an int or a float. Do not divide "
    "by the steps since the last log.",
)
def a_log_may_hold_anything(case: Case) -> None:
    """A log without a loss, or with an integer, a text, a Boolean or NaN, raises no error.

    Nor does a second log at the same step.
    """
    training = case.begin()
    training.fire("on_epoch_begin")
    for logs in (
        {"loss": 0.5, "learning_rate": 0.125},
        {"tokens_seen": 10**12, "phase": "warm-up", "is_warm": True},
        {"loss": math.nan, "grad_norm": math.inf},
        {"loss": 1, "learning_rate": 0.0},
        {},
    ):
        training.step(logs)
    for loss in (0.5, 0.25):
        training.log({"loss": loss, "learning_rate": 0.125})
    training.evaluate({"eval_loss": math.nan, "eval_accuracy": 0})
    training.evaluate({"eval_runtime": 0.1})
    training.finish()


@_event_rule(
    "EVT-008",
    why="A dictionary of evaluation sets is evaluated set by set, as eval_a_loss and eval_b_loss. "
    "Users evaluate more sets with metric_key_prefix (Lightning-AI/pytorch-lightning#524).",
    fix="Read metrics with `.get`, and ignore an evaluation that lacks the metric.",
)
def evaluations_may_have_other_names(case: Case) -> None:
    """Evaluations of further sets, under names of their own, raise no error."""
    training = case.begin()
    training.fire("on_epoch_begin")
    for _ in range(2):
        training.step({"loss": 0.5}, evaluates=True)
        training.evaluate()
        training.evaluate({"eval_a_loss": 0.5, "eval_b_loss": 0.25})
        training.evaluate({"test_loss": 0.75})
    training.fire("on_epoch_end")
    training.finish()


@_event_rule(
    "EVT-009",
    why="A stream has no length, and a training with max_steps has no number of epochs: "
    "transformers then sets it to sys.maxsize (transformers 5.23.0, trainer.py). Without an "
    "evaluation set, eval_dataloader is None.",
    fix="Read the length of a training from state.max_steps. Before len(), check that the data "
    "have a length.",
)
def data_may_have_no_length(case: Case) -> None:
    """Streamed training data, missing evaluation data and endless epochs raise no error."""
    training = case.begin(extra={"train_dataloader": _Stream(), "eval_dataloader": None})
    training.state.num_train_epochs = sys.maxsize
    training.complete(save=True)


@_event_rule(
    "EVT-010",
    why="A plain PyTorch model has no config, and a wrapped model has another class "
    "(unslothai/unsloth-zoo#873).",
    fix="Read the configuration with `getattr(model, 'config', None)`.",
)
def a_model_may_have_no_configuration(case: Case) -> None:
    """A model without a `config` raises no error."""
    training = case.training()
    if hasattr(training.model, "config"):
        del training.model.config
    training.live()


@_event_rule(
    "EVT-011",
    why="A trial of a search saves below output_dir/run-0. A callback that builds the path itself "
    "looks for a checkpoint that does not exist (ultralytics/yolov5#4672).",
    fix="Use the keyword checkpoint_dir of on_save, and tolerate a missing directory.",
)
def a_trial_saves_in_its_own_directory(case: Case) -> None:
    """A trial of a search, which saves in a directory of its own, raises no error."""
    state = TrainerState(is_hyper_param_search=True, trial_name="trial-3")
    state.trial_params = {"learning_rate": 0.5}
    training = case.begin(state=state)
    for _ in training.steps():
        training.save("run-0")
    training.finish()


@_event_rule(
    "EVT-012",
    why="Users' directories have spaces and non-ASCII letters in their names. Callbacks build "
    "shell commands, URLs and files from them.",
    fix="Use pathlib, open files with encoding='utf-8', and quote shell arguments.",
)
def a_directory_may_have_any_name(case: Case) -> None:
    """An `output_dir` with spaces, symbols and letters of other scripts raises no error."""
    folder = case.folder / "Läufe #1 & 数据 (50%)"
    folder.mkdir()
    case.training(args=case.arguments(output_dir=str(folder))).live()


@_event_rule(
    "EVT-013",
    why="A resumed training begins at the step of its checkpoint. A callback that counts steps "
    "from 0, or waits for a first epoch, fails there (huggingface/transformers#28544).",
    fix="Read state.global_step and state.epoch, and do not rely on earlier events.",
)
def a_training_may_resume_without_a_state(case: Case) -> None:
    """A training that resumes from a checkpoint without the callback's state raises no error."""
    case.resume(case.make(), None, 2).run(save=True)


@_event_rule(
    "EVT-014",
    why="With logging_steps=0.1, users log ten times in a training. As a whole number, 0.1 is 0, "
    "and dividing by it ends the training.",
    fix="Read state.logging_steps, state.eval_steps and state.save_steps, which are numbers of "
    "steps, instead of the arguments.",
)
def intervals_may_be_shares(case: Case) -> None:
    """Intervals in the arguments that are shares of the training raise no error."""
    shares = dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), 0.25)
    case.training(args=case.arguments(**shares)).live()


class _Stream:
    """Data without a length."""

    def __iter__(self) -> Iterator[list[float]]:
        return iter([[0.5], [1.5]])


def _orders() -> Iterator[tuple[Any, ...]]:
    actions = (lambda training: training.log({"loss": 0.5}), Training.evaluate, Training.save)
    for size in range(4):
        yield from permutations(actions, size)
