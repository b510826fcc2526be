"""Events: a callback takes what loops send, in every order in which they send it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from itertools import permutations
from typing import Any

from callback_contract._case import Case
from callback_contract._registry import rule
from callback_contract._training import DIED, Training
from callback_core import TrainerState


@rule(
    "EVT-001",
    why="Loops pass more from version to version (huggingface/transformers#32385, "
    "huggingface/transformers#33444); a callback without **kwargs then ends the training.",
    mend="End the signature of every event with **kwargs, and ignore what is in it.",
)
def takes_unknown_keywords(case: Case) -> None:
    """Every event takes keywords that it has never heard of."""
    case.training(extra={"of_a_newer_loop": object()}).live()


@rule(
    "EVT-002",
    why="A data loader that yields nothing makes an epoch without a step; transformers then warns, "
    "stops and ends the training as usual (transformers 5.23.0, trainer.py).",
    mend="When an epoch or a training ends, do not rely on a step or a log before.",
)
def an_epoch_may_have_no_step(case: Case) -> None:
    """An epoch and a training without a single step raise nothing."""
    training = case.training()
    training.begin()
    training.fire("on_epoch_begin")
    training.fire("on_epoch_end")
    training.finish()
    training = case.training()
    training.begin()
    training.end()


@rule(
    "EVT-003",
    why="eval_on_start evaluates before the first step, when nothing has been counted yet "
    "(transformers 4.42).",
    mend="Do not divide by the step, and give a value to what steps set up before them.",
)
def an_evaluation_may_come_first(case: Case) -> None:
    """An evaluation between `on_train_begin` and the first step raises nothing."""
    training = case.training()
    training.begin()
    training.evaluate()
    training.complete()


@rule(
    "EVT-004",
    why="An interrupt comes at any time, in the first batch too. A callback that fails then hides "
    "what ended the training, and leaves its run open (Lightning-AI/pytorch-lightning#12291).",
    mend="In on_exception and on_train_end, use nothing that only a step or an epoch sets up.",
)
def a_training_may_die_anywhere(case: Case) -> None:
    """An error before the begin, right after it, in a step or an evaluation raises nothing more."""
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
        training.end(DIED)


@rule(
    "EVT-005",
    why="Strategies and callbacks decide separately whether a step logs, evaluates or saves: the "
    "best step may have been evaluated and never saved (transformers 5.23.0).",
    mend="At an event, use nothing that only another event sets up; give it a value before.",
)
def what_follows_a_step_comes_in_any_combination(case: Case) -> None:
    """A step is followed by a log, an evaluation and a checkpoint in any order, or by nothing."""
    for order in _orders():
        training = case.training()
        training.begin()
        training.fire("on_epoch_begin")
        training.step()
        for what in order:
            what(training)
        training.fire("on_epoch_end")
        training.end()


@rule(
    "EVT-006",
    why="transformers added on_optimizer_step, on_pre_optimizer_step and on_push_begin in later "
    "versions (huggingface/transformers#31095, huggingface/transformers#33444, "
    "huggingface/transformers#42850), and loops have events of their own.",
    mend="Do not answer with __getattr__ for names that you do not know.",
)
def ignores_unknown_events(case: Case) -> None:
    """An event that the callback has never heard of raises nothing."""
    training = case.training()
    training.fire("on_something_of_a_newer_loop")
    training.run()
    training.fire("on_something_of_a_newer_loop")


@rule(
    "EVT-007",
    why="A log need not have the loss: evaluations, the end of training and other callbacks log "
    "too, and what they log may be a count, a text or NaN (huggingface/transformers#4883).",
    mend="Read logs by `.get`, and format a value only if it is an int or a float.",
)
def a_log_may_hold_anything(case: Case) -> None:
    """A log without a loss, with an integer, a text, a truth value or NaN raises nothing."""
    training = case.training()
    training.begin()
    training.fire("on_epoch_begin")
    for logs in (
        {"loss": 0.5, "learning_rate": 0.125},
        {"tokens_seen": 10**12, "phase": "warm-up", "is_warm": True},
        {"loss": math.nan, "grad_norm": math.inf},
        {"loss": 1, "learning_rate": 0.0},
        {},
    ):
        training.step(logs)
    training.evaluate({"eval_loss": math.nan, "eval_accuracy": 0})
    training.evaluate({"eval_runtime": 0.1})
    training.finish()


@rule(
    "EVT-008",
    why="A dictionary of evaluation sets is evaluated one by one, as eval_a_loss and eval_b_loss, "
    "and users evaluate further sets by metric_key_prefix (Lightning-AI/pytorch-lightning#524).",
    mend="Read metrics by `.get`, and ignore an evaluation without the metric that is needed.",
)
def evaluations_may_have_other_names(case: Case) -> None:
    """Evaluations of several sets, under their own names, raise nothing beside the usual one."""
    training = case.training()
    training.begin()
    training.fire("on_epoch_begin")
    for _ in range(2):
        training.step({"loss": 0.5})
        training.evaluate()
        training.evaluate({"eval_a_loss": 0.5, "eval_b_loss": 0.25})
        training.evaluate({"test_loss": 0.75})
    training.fire("on_epoch_end")
    training.finish()


@rule(
    "EVT-009",
    why="A stream has no length, and a training by max_steps has no number of epochs: transformers "
    "then says sys.maxsize (transformers 5.23.0, trainer.py). Without an evaluation set there is "
    "no eval_dataloader.",
    mend="Use state.max_steps for the length of a training, and len() only of what has one.",
)
def data_may_have_no_length(case: Case) -> None:
    """A stream as training data, no evaluation data and endless epochs raise nothing."""
    training = case.training(extra={"train_dataloader": _Stream(), "eval_dataloader": None})
    training.begin()
    training.state.num_train_epochs = sys.maxsize
    training.complete(save=True)


@rule(
    "EVT-010",
    why="A plain PyTorch model has no config; one that is wrapped has another class "
    "(unslothai/unsloth-zoo#873).",
    mend="Read the configuration by `getattr(model, 'config', None)`.",
)
def a_model_may_have_no_configuration(case: Case) -> None:
    """A model without a `config` raises nothing."""
    training = case.training()
    if hasattr(training.model, "config"):
        del training.model.config
    training.live()


@rule(
    "EVT-011",
    why="A trial of a search saves below output_dir/run-0: a callback that builds the path itself "
    "looks for a checkpoint that is not there (ultralytics/yolov5#4672).",
    mend="Use the keyword checkpoint_dir of on_save; do not fail if there is no such directory.",
)
def a_trial_saves_in_its_own_directory(case: Case) -> None:
    """A trial of a search, whose checkpoints lie in a directory of its own, raises nothing."""
    state = TrainerState(is_hyper_param_search=True, trial_name="trial-3")
    state.trial_params = {"learning_rate": 0.5}
    training = case.training(state=state)
    training.begin()
    for _ in training.steps():
        training.save("run-0")
    training.finish()


@rule(
    "EVT-012",
    why="People give their directories names with spaces and letters of their language, and a "
    "callback builds shell commands, URLs and files of these.",
    mend="Use pathlib, open files with encoding='utf-8', and quote what goes to a shell.",
)
def a_directory_may_have_any_name(case: Case) -> None:
    """An `output_dir` with spaces, letters of other scripts and signs raises nothing."""
    folder = case.folder / "Läufe #1 & 数据 (50%)"
    folder.mkdir()
    case.training(args=case.arguments(output_dir=str(folder))).live()


@rule(
    "EVT-013",
    why="A training is resumed at the step of a checkpoint: what counts steps from 0, or waits for "
    "a first epoch, meets a state that has advanced (huggingface/transformers#28544).",
    mend="Read state.global_step and state.epoch; do not count on events before them.",
)
def a_training_may_be_resumed_without_a_state(case: Case) -> None:
    """A training that resumes at a checkpoint raises nothing, also without the callback's state."""
    training = case.resumed(case.make(), None, 2)
    training.run(save=True)


class _Stream:
    """Data without a length."""

    def __iter__(self) -> Iterator[list[float]]:
        return iter([[0.5], [1.5]])


def _orders() -> Iterator[tuple[Any, ...]]:
    whats = (_log, Training.evaluate, Training.save)
    for size in range(4):
        yield from permutations(whats, size)


def _log(training: Training) -> None:
    training.log({"loss": 0.5})
