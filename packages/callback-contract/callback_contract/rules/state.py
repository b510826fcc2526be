"""State: what a callback keeps in a checkpoint comes back, and is its own."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from callback_contract._case import Case
from callback_contract._rule import ContractViolation, require, rule
from callback_core import ExportableState, TrainerState


@rule(
    "STA-001",
    why="EarlyStopping begins to count anew when a training is resumed: Keras' resets itself in"
    " on_train_begin (keras-team/keras#9462, keras-team/keras#14862), and transformers' is "
    "restored with what it began with (huggingface/transformers#28544, "
    "huggingface/transformers#33875).",
    mend="Let load_state_dict take over all that state_dict returns, and on_train_begin leave it.",
    needs=("state",),
)
def state_comes_back(case: Case) -> None:
    """A new callback with the state of another has it still when the resumed training begins."""
    first = case.make()
    training = case.training(first)
    training.run()
    saved = deepcopy(_state(first))
    second = case.make()
    _load(second, deepcopy(saved))
    resumed = TrainerState(global_step=4, epoch=2.0, max_steps=8, num_train_epochs=4)
    training = case.training(second, state=resumed)
    training.begin()
    again = _state(second)
    training.end()
    # What is not known yet when a state is taken may be known by now.
    lost = sorted(name for name in saved if saved[name] not in (None, again.get(name)))
    require(not lost, f"of the state {saved!r}, {again!r} came back")


@rule(
    "STA-002",
    why="A numpy number in the state is found when the first checkpoint is written: hours in, "
    "`Object of type float32 is not JSON serializable` (transformers 5.23.0).",
    mend="Return dict, list, str, int, float, bool and None; keys are strings.",
    needs=("state",),
)
def state_is_json(case: Case) -> None:
    """The state is of the types that JSON has, so that it is read back as it was."""
    callback = case.make()
    case.training(callback).run()
    strange = list(_not_json(_state(callback), "state"))
    require(not strange, f"JSON does not have {', '.join(strange)}")


@rule(
    "STA-003",
    why="Two callbacks of one class share an entry in the checkpoints of Composer, and in "
    "transformers' the oldest entries win (huggingface/transformers#33875).",
    mend="Keep the state on the object, not on its class.",
    needs=("state",),
)
def two_of_a_class_have_states_of_their_own(case: Case) -> None:
    """What a second callback of the class goes through does not change the first one's state."""
    first, second = case.make(), case.make()
    case.training(first).run(steps=2)
    before = deepcopy(_state(first))
    case.training(second).run(steps=4)
    require(_state(first) == before, "the second one's training changed the first one's state")


@rule(
    "STA-004",
    why="A checkpoint may be written before the first step, and is restored into callbacks "
    "whose training has not begun (huggingface/transformers#32115).",
    mend="Set in the constructor all that the state is made of.",
    needs=("state",),
)
def has_a_state_at_any_time(case: Case) -> None:
    """The state can be taken and restored before a training, in its middle and after it."""
    callback = case.make()
    _load(callback, deepcopy(_state(callback)))
    training = case.training(callback)
    training.begin()
    _state(callback)
    training.step({"loss": 0.5})
    _state(callback)
    training.end()
    _load(case.make(), deepcopy(_state(callback)))


@rule(
    "STA-005",
    why="A checkpoint of a newer version cannot be loaded where an unknown field is an error "
    "(OpenGVLab/InternVL#558, transformers 5.23.0).",
    mend="Read from the state what you know, by name, and leave the rest.",
    needs=("state",),
)
def reads_the_state_of_a_newer_version(case: Case) -> None:
    """A state with an entry that this version does not know is loaded without it."""
    callback = case.make()
    case.training(callback).run()
    _load(case.make(), {**deepcopy(_state(callback)), "of_a_newer_version": {"a": [1, None]}})


@rule(
    "STA-006",
    why="The state in a checkpoint was not that of its step "
    "(Lightning-AI/pytorch-lightning#1464); one that goes on changing while the checkpoint "
    "is written is of no step at all.",
    mend="Return copies of lists and dicts, not those that go on changing.",
    needs=("state",),
)
def a_state_that_was_taken_stays(case: Case) -> None:
    """A state that was taken is the same whatever the callback goes through after it."""
    callback = case.make()
    training = case.training(callback)
    training.begin()
    training.fire("on_epoch_begin")
    training.step({"loss": 0.5})
    training.evaluate()
    taken = _state(callback)
    before = deepcopy(taken)
    training.step({"loss": 0.25})
    training.evaluate()
    training.end()
    require(taken == before, f"{before!r} became {taken!r} while the training went on")


@rule(
    "STA-007",
    why="A check that is skipped in silence is a check nobody misses: one release of a "
    "library's suite ran 1 of 47 tests, and was green (scikit-learn/scikit-learn#33003).",
    mend="Claim the capability `state`, or remove state_dict and load_state_dict.",
)
def claims_its_state(case: Case) -> None:
    """A callback that keeps something in checkpoints claims the capability `state`."""
    if "state" not in case.subject.capabilities:
        callback = case.make()
        has = callable(getattr(callback, "state_dict", None)) or _exports(callback)
        require(not has, f"{type(callback).__name__} has a state and does not claim it")


def _exports(callback: Any) -> bool:
    return any(base.__name__ == ExportableState.__name__ for base in type(callback).__mro__)


def _state(callback: Any) -> dict[str, Any]:
    """Return what the callback keeps, by whichever of the two interfaces it has."""
    state: Any
    try:
        if callable(getattr(callback, "state_dict", None)):
            state = callback.state_dict()
        else:
            state = callback.state()["attributes"]
    except Exception as error:
        raise ContractViolation(f"its state cannot be taken: {error!r}") from error
    if not isinstance(state, dict):
        raise ContractViolation(f"its state is no dict, but {state!r}")
    return state


def _load(callback: Any, state: dict[str, Any]) -> None:
    try:
        if callable(getattr(callback, "load_state_dict", None)):
            callback.load_state_dict(state)
        else:
            for name, value in state.items():
                setattr(callback, name, value)
    except Exception as error:
        raise ContractViolation(f"the state {state!r} cannot be loaded: {error!r}") from error


def _not_json(value: Any, name: str) -> Iterator[str]:
    """Yield where in `value` there is something that JSON would change."""
    if type(value) is dict:
        for key, part in value.items():
            if type(key) is not str:
                yield f"the key {key!r} of {name}"
            yield from _not_json(part, f"{name}[{key!r}]")
    elif type(value) is list:
        for index, part in enumerate(value):
            yield from _not_json(part, f"{name}[{index}]")
    elif type(value) not in (str, int, float, bool, type(None)):
        yield f"the {type(value).__name__} at {name}"
