"""Lifecycle: a callback can be begun, ended and used again in any order that loops have."""

from __future__ import annotations

from contextlib import suppress

from callback_contract._case import Case
from callback_contract._rule import ContractViolation, rule


@rule(
    "LIF-001",
    why="A loop that fails before its first step still closes its callbacks "
    "(Lightning-AI/pytorch-lightning#10397).",
    mend="Let on_train_end do nothing where on_train_begin has not opened anything.",
)
def closes_without_having_begun(case: Case) -> None:
    """`on_train_end` of a callback whose training never began raises nothing."""
    case.training().end()


@rule(
    "LIF-002",
    why="A trial that is pruned is ended by the trainer and by the search around it, and users "
    "end a training themselves to be sure that its run is closed "
    "(huggingface/transformers#48874).",
    mend="Forget in on_train_end what it has closed, and close nothing where there is nothing.",
)
def closes_twice(case: Case) -> None:
    """A second `on_train_end` raises nothing."""
    training = case.training()
    training.begin()
    training.step({"loss": 0.5})
    training.end()
    training.end()


@rule(
    "LIF-003",
    why="One object in several trainings kept what the first one had left behind "
    "(keras-team/keras#20256, keras-team/keras#22967, pytorch/ignite#3535).",
    mend="Set up in on_train_begin all that a training needs, and not in the constructor or once.",
)
def trains_twice(case: Case) -> None:
    """One callback goes through two trainings, one after the other, and raises nothing."""
    callback = case.make()
    case.training(callback).run()
    case.training(callback).run()


@rule(
    "LIF-004",
    why="evaluate() is called on a model that is only loaded; TensorBoard's callback of "
    "transformers then writes to ./runs, since it knows of no training (transformers "
    "5.23.0).",
    mend="Open on demand what an evaluation needs, or do nothing outside of a training.",
)
def evaluates_before_training(case: Case) -> None:
    """An evaluation and a prediction before any training raise nothing."""
    training = case.training()
    training.fire("on_init_end")
    training.evaluate()
    training.predict()
    with suppress(ContractViolation):  # which LIF-001 is about
        training.end()


@rule(
    "LIF-005",
    why="Trackio's callback logged to a run that on_train_end had finished "
    "(huggingface/transformers#46935).",
    mend="In on_train_end, set back whatever says that something is open.",
)
def evaluates_after_training(case: Case) -> None:
    """An evaluation and a prediction after a training raise nothing."""
    training = case.training()
    training.run()
    training.evaluate()
    training.predict()


@rule(
    "LIF-006",
    why="transformers takes callbacks at any time (add_callback), so that the first event of "
    "one need not be on_train_begin; its trackers set themselves up at whichever event "
    "comes first.",
    mend="Read what is needed from args and state at each event, or do nothing until the next "
    "on_train_begin.",
)
def joins_in_the_middle(case: Case) -> None:
    """A callback that is added between two steps raises nothing at those that follow."""
    training = case.training()
    training.state.global_step, training.state.epoch = 2, 1.0
    training.fire("on_epoch_begin")
    training.step({"loss": 0.5})
    training.step({"loss": 0.25})
    with suppress(ContractViolation):  # which LIF-001 is about
        training.end()


@rule(
    "LIF-007",
    why="transformers' Trainer does not call on_train_end when a training raises, and in a "
    "notebook the next train() follows with the same callbacks "
    "(huggingface/transformers#48875).",
    mend="Close in on_train_begin what the training before has left open, then begin anew.",
)
def begins_after_a_training_that_never_ended(case: Case) -> None:
    """A training that follows one without an `on_train_end` raises nothing."""
    callback = case.make()
    broken_off = case.training(callback)
    broken_off.begin()
    broken_off.step({"loss": 0.5})
    case.training(callback).run()


@rule(
    "LIF-008",
    why="Two trainers in one program, as in a distillation or a search, each have their "
    "callbacks: ClearML's keeps counters on its class and mixes them up (transformers "
    "5.23.0), Composer refuses a callback that is open elsewhere.",
    mend="Keep everything on the object, nothing on its class or in the module.",
)
def two_train_at_once(case: Case) -> None:
    """Two callbacks of one class in two trainings that take turns raise nothing."""
    one, other = case.training(), case.training()
    for training in (one, other):
        training.begin()
        training.fire("on_epoch_begin")
    for _ in range(2):
        one.step({"loss": 0.5})
        other.step({"loss": 0.25})
    one.end()
    other.step({"loss": 0.125})
    other.end()
