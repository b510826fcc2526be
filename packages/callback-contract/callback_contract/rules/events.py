"""Events: every order that loops have, keywords and events that are not there yet."""

from __future__ import annotations

from itertools import permutations
from typing import Any, Final

from callback_contract._case import Case, Training
from callback_contract._rule import rule
from callback_core import EVENTS

_ORDERS: Final = ((), ("save",), *permutations(("log", "evaluate", "save")))


@rule(
    "EVT-001",
    why="Loops pass more from version to version (huggingface/transformers#32385, "
    "huggingface/transformers#33444); a callback without **kwargs ends the training with "
    "`unexpected keyword argument`.",
    mend="End the signature of every event with **kwargs, and ignore what is in it.",
)
def takes_unknown_keywords(case: Case) -> None:
    """Every event takes keywords that it has never heard of."""
    case.training(case.make(), from_a_newer_loop=object()).live()


@rule(
    "EVT-002",
    why="A data loader that yields nothing makes an epoch without a step; transformers then "
    "warns, stops and ends the training as ever (transformers 5.23.0, trainer.py).",
    mend="Do not take it for granted that there was a step when an epoch or a training ends.",
)
def trains_without_a_step(case: Case) -> None:
    """An epoch and a training without a single step raise nothing."""
    training = case.training()
    training.begin()
    training.fire("on_epoch_begin")
    training.fire("on_epoch_end")
    training.end()


@rule(
    "EVT-003",
    why="eval_on_start evaluates before the first step, when nothing has been counted yet "
    "(transformers 4.42).",
    mend="Do not divide by the step, and let what steps set up have a value before them.",
)
def evaluates_before_the_first_step(case: Case) -> None:
    """An evaluation between `on_train_begin` and the first step raises nothing."""
    training = case.training()
    training.begin()
    training.evaluate()
    training.fire("on_epoch_begin")
    training.step({"loss": 0.5})
    training.fire("on_epoch_end")
    training.end()


@rule(
    "EVT-004",
    why="An interrupt comes at any time, in the first batch too. A callback that fails then "
    "hides what ended the training, and leaves its run open "
    "(Lightning-AI/pytorch-lightning#12291).",
    mend="In on_exception and on_train_end, use nothing that only a step or an epoch sets up.",
)
def is_interrupted_anywhere(case: Case) -> None:
    """An error right after the beginning, in a step and in an evaluation raises nothing more."""
    for broken_at in ((), ("on_epoch_begin", "on_step_begin"), ("on_prediction_step",)):
        training = case.training()
        training.begin()
        for event in broken_at:
            training.fire(event)
        training.end(ValueError("the training broke off"))


@rule(
    "EVT-005",
    why="Whether a step logs, evaluates or saves is decided by strategies and callbacks, each "
    "for itself: the best step may have been evaluated and never saved (transformers "
    "5.23.0).",
    mend="Use at one event nothing that only another one sets up; give it a value before.",
)
def what_follows_a_step_comes_in_any_combination(case: Case) -> None:
    """A step is followed by a log, an evaluation and a checkpoint in any order, or by nothing."""
    for order in _ORDERS:
        training = case.training()
        training.begin()
        training.fire("on_epoch_begin")
        training.step()
        for what in order:
            _do(training, what)
        training.fire("on_epoch_end")
        training.end()


@rule(
    "EVT-006",
    why="transformers added on_optimizer_step, on_pre_optimizer_step and on_push_begin in later"
    " versions (huggingface/transformers#31095, huggingface/transformers#33444, "
    "huggingface/transformers#42850), and loops have events of their own.",
    mend="Do not answer with __getattr__ for names that you do not know.",
)
def is_not_troubled_by_unknown_events(case: Case) -> None:
    """An event that the callback has never heard of raises nothing."""
    training = case.training()
    training.fire("on_something_of_a_newer_loop")
    training.run()
    training.fire("on_something_of_a_newer_loop")


@rule(
    "EVT-007",
    why="The same callbacks are called by loops for MLX, JAX or none of these, which have no "
    "processing class, no data loaders or no model to pass (unslothai/unsloth-zoo#873).",
    mend="Give every keyword that you take a default of None, and do without it.",
)
def needs_none_of_the_common_keywords(case: Case) -> None:
    """Every event works with what it passes itself, without `model` and the other keywords."""
    training = _Sparse([case.make()], case.arguments())
    training.live()


@rule(
    "EVT-008",
    why="A loop without epochs has epoch=None, which broke callbacks that round it "
    "(unslothai/unsloth-zoo#821); in transformers 4.34 it is None before the first "
    "training.",
    mend="Read state.epoch as `state.epoch or 0`, or leave it out where it is None.",
)
def lives_without_epochs(case: Case) -> None:
    """A training whose `state.epoch` is None raises nothing."""
    for strategy in ("steps", "epoch"):
        training = case.training(
            args=case.arguments(
                logging_strategy=strategy, eval_strategy=strategy, save_strategy=strategy
            )
        )
        training.begin()
        training.state.global_step, training.state.epoch = 1, None
        for event in ("on_epoch_begin", "on_step_begin", "on_step_end"):
            training.fire(event)
        training.log({"loss": 0.5})
        training.evaluate()
        training.fire("on_epoch_end")
        training.end()


class _Sparse(Training):
    """A training that passes no more than each event's own."""

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        own = EVENTS[event].passes
        return super().call(callback, event, {n: v for n, v in keywords.items() if n in own})


def _do(training: Training, what: str) -> None:
    if what == "log":
        training.log({"loss": 0.5})
    elif what == "evaluate":
        training.evaluate()
    else:
        training.save()
