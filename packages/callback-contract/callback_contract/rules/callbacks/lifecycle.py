"""Lifecycle: a callback begins, ends and is used again in any order that loops have."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from callback_contract._case import Case
from callback_contract._process import children, files_below, threads
from callback_contract._registry import rule
from callback_contract._violation import ContractViolation, require
from callback_contract._watching import cut_short, observe, observe_in_turns
from callback_core import TrainerState


@rule(
    "LIF-001",
    why="A loop that fails before its first step still closes its callbacks "
    "(Lightning-AI/pytorch-lightning#10397).",
    mend="Let on_train_end do nothing if on_train_begin has not opened anything.",
)
def closes_without_having_begun(case: Case) -> None:
    """`on_train_end` of a callback whose training never began raises nothing."""
    case.training().end()


@rule(
    "LIF-002",
    why="A trial that is pruned is ended by the trainer and by the search around it; users end a "
    "training themselves to be sure that its run is closed (huggingface/transformers#48874).",
    mend="In on_train_end, forget what it has closed; close nothing if nothing is open.",
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
    why="One object in several trainings kept what the first had left behind "
    "(keras-team/keras#20256, keras-team/keras#22967, pytorch/ignite#3535).",
    mend="Set up in on_train_begin all that belongs to one training.",
)
def a_second_training_is_like_the_first(case: Case) -> None:
    """In a second training, a callback does what a new one does.

    It asks the loop for the same and prints the same. What it writes, its public attributes and
    its state are those of a new callback, too.
    """

    def trial(number: int) -> dict[str, str]:
        used = case.make()
        observe(case, f"first-{number}", used)
        return _differs_from_new_ones(case, used, f"{number}")

    _require_no_difference(trial)


@rule(
    "LIF-004",
    why="evaluate() is called on a model that is only loaded; TensorBoard's callback of "
    "transformers then writes to ./runs, since it knows of no training (transformers 5.23.0).",
    mend="Open what an evaluation needs when it comes, or do nothing outside of a training. "
    "state.epoch is None there, and state.max_steps is 0.",
)
def evaluates_before_training(case: Case) -> None:
    """An evaluation and a prediction before any training raise nothing."""
    training = case.training()
    training.fire("on_init_end")
    training.evaluate()
    training.predict()
    with suppress(ContractViolation):  # LIF-001 is about this
        training.end()


@rule(
    "LIF-005",
    why="Trackio's callback logged to a run that on_train_end had finished "
    "(huggingface/transformers#46935).",
    mend="In on_train_end, reset whatever says that something is open.",
)
def evaluates_after_training(case: Case) -> None:
    """An evaluation and a prediction after a training raise nothing."""
    training = case.training()
    training.run()
    training.evaluate()
    training.predict()


@rule(
    "LIF-006",
    why="add_callback takes callbacks at any time, so the first event of one may be any event.",
    mend="Read what is needed from args and state at each event, or do nothing until the next "
    "on_train_begin.",
)
def joins_in_the_middle(case: Case) -> None:
    """A callback that is added between two steps raises nothing at the events that follow."""
    state = TrainerState(global_step=2, epoch=1.0, max_steps=4, num_train_epochs=2)
    training = case.training(state=state)
    for _ in training.steps(save=True):
        pass
    with suppress(ContractViolation):  # LIF-001 is about this
        training.end()


@rule(
    "LIF-007",
    why="transformers' Trainer does not call on_train_end when a training raises; in a notebook "
    "the next train() follows with the same callbacks (huggingface/transformers#48875).",
    mend="In on_train_begin, close what an earlier training has left open, and start afresh.",
)
def a_training_after_a_broken_one_is_like_the_first(case: Case) -> None:
    """After a training that died, a callback does what a new one does.

    It does so whether the loop notified it or not.
    """
    for notified in (True, False):

        def trial(number: int, notified: bool = notified) -> dict[str, str]:
            used, name = case.make(), f"{notified}-{number}"
            cut_short(case, f"died-{name}", used, notified=notified)
            return _differs_from_new_ones(case, used, name)

        _require_no_difference(trial)


@rule(
    "LIF-008",
    why="Two trainers in one program, as in a distillation or a search, each have callbacks: "
    "ClearML's keeps counters on its class and mixes them up (transformers 5.23.0).",
    mend="Keep everything on the object, nothing on its class or in the module.",
)
def two_train_at_once(case: Case) -> None:
    """Two callbacks of one class, in trainings that take turns, each do what one alone does."""

    def trial(number: int) -> dict[str, str]:
        alone = _stable(case, f"alone-{number}")
        both = observe_in_turns(case, f"turn-{number}", case.make(), case.make())
        return both[0].differs(alone) | both[1].differs(alone)

    _require_no_difference(trial)


@rule(
    "LIF-009",
    why="A program makes its callbacks long before it trains, or makes them and never trains: a "
    "constructor that opens a file or a run leaves an empty one each time.",
    mend="Open files, runs and connections in on_train_begin, not in the constructor.",
)
def making_it_opens_nothing(case: Case) -> None:
    """Making a callback writes no file, and starts no thread and no process."""
    first = case.make()
    before = threads(), children()  # the hook may prepare a store that both use
    files = files_below(case.output_dir)
    second = case.make()
    require(threads() <= before[0], "its constructor started a thread")
    require(children() <= before[1], "its constructor started a process")
    new = sorted(files_below(case.output_dir).keys() - files.keys())
    require(not new, f"its constructor wrote {new}")
    del first, second  # until here, both are there


TRIALS = 3
"""What a thread of a callback measures differs by chance; a fault shows itself each time."""


def _require_no_difference(trial: Callable[[int], dict[str, str]]) -> None:
    differences = trial(1)
    for number in range(2, TRIALS + 1):
        if differences:
            again = trial(number)
            differences = {part: seen for part, seen in differences.items() if part in again}
    require(not differences, "; ".join(list(differences.values())[:4]))


def _differs_from_new_ones(case: Case, used: Any, name: str) -> dict[str, str]:
    expected = _stable(case, f"new-{name}")
    return observe(case, f"again-{name}", used).differs(expected)


def _stable(case: Case, name: str) -> dict[str, Any]:
    """Return what two new callbacks have in common after a training.

    One of the trainings takes longer: what depends on the time is not compared.
    """
    quick = observe(case, f"{name}-quick", case.make())
    return quick.stable(observe(case, f"{name}-slow", case.make(), pause=0.05))
