"""Lifecycle: a callback begins, ends and is reused in any order that loops have."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any

from callback_contract._behaviour import (
    IN_OUTPUT_DIR,
    Behaviour,
    deviations,
    die_in_third_step,
    observe,
    observe_interleaved,
    stable_parts,
)
from callback_contract._case import Case
from callback_contract._class_state import dropped_tensors, restored_classes
from callback_contract._process import children, files_below, threads
from callback_contract._registry import rule
from callback_contract._violation import ContractViolation, require


@rule(
    "LIF-001",
    why="A loop that fails before its first step still ends its callbacks "
    "(Lightning-AI/pytorch-lightning#10397).",
    fix="In on_train_end, do nothing if on_train_begin has opened nothing.",
    forbids_errors=True,
)
def ends_without_a_begin(case: Case) -> None:
    """`on_train_end` raises no error if the training never began."""
    case.training().end()


@rule(
    "LIF-002",
    why="The trainer ends a pruned trial, and the search around it ends it again. Users also end "
    "a training themselves to close its run (huggingface/transformers#48874).",
    fix="In on_train_end, close only what is open, and mark it as closed.",
    forbids_errors=True,
)
def ends_twice(case: Case) -> None:
    """A second `on_train_end` raises no error."""
    training = case.begin()
    training.step({"loss": 0.5})
    training.end()
    training.end()


@rule(
    "LIF-003",
    why="A callback in its second training used values that the first one had left behind "
    "(keras-team/keras#20256, keras-team/keras#22967, pytorch/ignite#3535).",
    fix="Initialise everything that belongs to one training in on_train_begin.",
)
def a_second_training_equals_the_first(case: Case) -> None:
    """In a second training, a callback behaves like a new one.

    It makes the same requests, and prints and logs the same. Its files, its public attributes and
    its state are also those of a new callback.
    """

    def used(name: str) -> Any:
        callback = case.make()
        observe(case, f"first-{name}", callback)
        return callback

    _require_as_new(case, used)


@rule(
    "LIF-004",
    why="Users call evaluate() on a model that they only loaded. transformers' TensorBoardCallback "
    "then writes to ./runs, because no training has begun (transformers 5.23.0).",
    fix="Open what an evaluation needs when it comes, or do nothing outside a training. "
    "state.epoch is None there, and state.max_steps is 0.",
    forbids_errors=True,
)
def evaluates_before_training(case: Case) -> None:
    """An evaluation and a prediction before any training raise no error."""
    training = case.training()
    training.fire("on_init_end")
    training.evaluate()
    training.predict()
    with suppress(ContractViolation):  # LIF-001 reports this
        training.end()


@rule(
    "LIF-005",
    why="Trackio's callback logged to a run that on_train_end had finished "
    "(huggingface/transformers#46935).",
    fix="In on_train_end, reset every attribute that marks something as open.",
    forbids_errors=True,
)
def evaluates_after_training(case: Case) -> None:
    """An evaluation and a prediction after a training raise no error."""
    training = case.training()
    training.run()
    training.evaluate()
    training.predict()


@rule(
    "LIF-006",
    why="add_callback accepts callbacks at any time, so any event may be the first one.",
    fix="Read what you need from args and state at each event, or do nothing until the next "
    "on_train_begin.",
    forbids_errors=True,
)
def joins_during_a_training(case: Case) -> None:
    """A callback that is added between two steps raises no error at later events."""
    training = case.begin(object(), max_steps=6)
    steps = training.steps(save=True)
    next(steps), next(steps)
    training.callbacks.append(case.make())
    for _ in steps:
        pass
    with suppress(ContractViolation):  # LIF-001 reports this
        training.end()


@rule(
    "LIF-007",
    why="transformers' Trainer does not call on_train_end if a training raises. In a notebook, "
    "the next train() uses the same callbacks (huggingface/transformers#48875).",
    fix="In on_train_begin, close what an earlier training left open, and initialise everything.",
)
def a_training_after_a_failed_one_equals_the_first(case: Case) -> None:
    """After a training that died, a callback behaves like a new one.

    This holds whether or not the loop reported the error to the callback.
    """
    for notified in (True, False):

        def used(name: str, notified: bool = notified) -> Any:
            callback = case.make()
            die_in_third_step(case, f"died-{name}", callback, notified=notified)
            return callback

        _require_as_new(case, used, f"notified-{notified}-")


@rule(
    "LIF-008",
    why="In a distillation or a search, two trainers in one program each have callbacks. ClearML's "
    "callback keeps counters on its class and mixes them up (transformers 5.23.0).",
    fix="Store everything on the object, nothing on its class or in the module.",
)
def two_callbacks_do_not_interfere(case: Case) -> None:
    """Two callbacks of one class, in trainings that alternate, behave as if each were alone."""

    def trial(number: int) -> dict[str, str]:
        alone = _stable_behaviour(case, f"alone-{number}")
        alone = {part: seen for part, seen in alone.items() if IN_OUTPUT_DIR not in part}
        first, second = observe_interleaved(case, f"turn-{number}", case.make(), case.make())
        return deviations(first, alone) | deviations(second, alone)

    _require_no_difference(case, trial)


@rule(
    "LIF-009",
    why="Programs construct callbacks long before they train, or never train. A constructor that "
    "opens a file or a run leaves an empty one each time.",
    fix="Open files, runs and connections in on_train_begin, not in the constructor.",
)
def its_constructor_opens_nothing(case: Case) -> None:
    """The constructor writes no file, and starts no thread and no process."""
    first = case.make()  # the hook may prepare a store that both callbacks use
    before = threads(), children()
    files = files_below(case.output_dir)
    second = case.make()
    require(threads() <= before[0], "its constructor started a thread")
    require(children() <= before[1], "its constructor started a process")
    new = sorted(files_below(case.output_dir).keys() - files.keys())
    require(not new, f"its constructor wrote {new}")
    del first, second  # keeps both alive until here


@rule(
    "LIF-010",
    why="Searches and launchers copy callbacks and send them to workers. A lock or an open file in "
    "a callback ends them (ray-project/ray#15678, huggingface/transformers#11249).",
    fix="Make locks, threads and files in on_train_begin, or leave them out in __getstate__.",
)
def a_copy_equals_the_original(case: Case) -> None:
    """A copy of a new callback, made with `copy.deepcopy` or `pickle`, behaves like the callback.

    The rule does not pickle what pickle finds in no module, such as a class within a function.
    """
    for how, copied in (("copy.deepcopy", deepcopy), ("pickle", _pickled)):

        def copy(name: str, how: str = how, copied: Callable[[Any], Any] = copied) -> Any:
            callback = case.make()
            try:
                return copied(callback)
            except Exception as error:
                raise ContractViolation(f"{how} of a new callback raised {error!r}") from error

        _require_as_new(case, copy, f"{how}-")


def _pickled(callback: Any) -> Any:
    """Return what another process would get; a copy if pickle does not find a class or function."""
    try:
        data = pickle.dumps(callback)
    except (AttributeError, pickle.PicklingError):
        return deepcopy(callback)
    return pickle.loads(data)


TRIALS = 3
"""Values that a thread measures differ by chance. A fault shows in each trial."""


def _require_no_difference(case: Case, trial: Callable[[int], dict[str, str]]) -> None:
    kind = type(case.make())
    found: dict[str, str] = {}
    for number in range(1, TRIALS + 1):
        with dropped_tensors(kind):
            again = trial(number)
        found = again if number == 1 else {part: found[part] for part in found if part in again}
        if not found:
            return
    raise ContractViolation("; ".join(list(found.values())[:4]))


def _require_as_new(case: Case, make: Callable[[str], Any], prefix: str = "") -> None:
    """Require that the callbacks that `make` returns for a name behave like new ones.

    The new ones train first, because the others may leave something on their class.
    """

    def trial(number: int) -> dict[str, str]:
        name = f"{prefix}{number}"
        expected = _stable_behaviour(case, f"new-{name}")
        return deviations(observe(case, f"again-{name}", make(name)), expected)

    _require_no_difference(case, trial)


def _stable_behaviour(case: Case, name: str) -> Behaviour:
    """Return the behaviour that two new callbacks share.

    One of their trainings takes longer, which excludes parts that depend on time. Neither leaves
    anything on the class.
    """

    def behaviour(speed: str, pause: float) -> Behaviour:
        callback = case.make()
        kind = type(callback)
        with dropped_tensors(kind), restored_classes(kind):
            return observe(case, f"{name}-{speed}", callback, pause)

    return stable_parts(behaviour("quick", 0.0), behaviour("slow", 0.05))
