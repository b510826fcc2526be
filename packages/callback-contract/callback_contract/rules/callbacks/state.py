"""State: a callback restores its state from checkpoints, so that a resumed training is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Any, Final

from callback_contract._behaviour import (
    deviations,
    files_outside_checkpoints,
    flattened,
    public_attributes,
    stable_parts,
)
from callback_contract._case import Case
from callback_contract._model_state import weights_of
from callback_contract._process import difference, restored_process, seed_generators
from callback_contract._registry import rule
from callback_contract._training import OUT_OF_MEMORY, Training
from callback_contract._violation import ContractViolation, require
from callback_contract._watching import ObservedTraining

_state_rule = partial(rule, needs=("state",))

_STEPS: Final = 12
"""The length of a training that is interrupted and resumed."""

_CHECKPOINTS: Final = (2, 6, 8)
"""The steps at which trainings are resumed. At 6, the last evaluation was not the best."""


@_state_rule(
    "STA-001",
    why="Early stopping counts from 0 in a resumed training. Keras' EarlyStopping resets itself in "
    "on_train_begin (keras-team/keras#9462, keras-team/keras#14862), and transformers restored the "
    "initial values (huggingface/transformers#28544).",
    fix="In load_state_dict, restore everything that state_dict returns. Do not reset it in "
    "on_train_begin.",
)
def a_resumed_training_begins_with_the_state(case: Case) -> None:
    """A new callback that loads a state still has it when the resumed training begins."""
    first = case.make()
    interrupted = case.begin(first)
    states: dict[str, Any] = {}
    unstable: list[str] = []
    for _ in interrupted.steps(save=True):
        states = case.states_of(first)  # in a training, because only then do loops save
        unstable = difference(flattened(states), flattened(case.states_of(first)))  # as times
    interrupted.finish()
    saved = flattened(states)
    second = case.make()
    resumed = case.resume(second, states, 8, interrupted=interrupted, max_steps=_STEPS)
    resumed.begin()
    begun = flattened(case.states_of(second))
    resumed.end()
    new = case.make()
    case.begin(new)
    initial = flattened(case.states_of(new))
    lost = {
        name: begun.get(name)
        for name, value in saved.items()
        if name not in unstable
        and value != "None"
        and value != begun.get(name) == initial.get(name)
    }
    require(not lost, f"when the resumed training began, it reset {saved} to {lost}")


@_state_rule(
    "STA-002",
    why="A numpy number in the state fails when the first checkpoint is written, hours later: "
    "`Object of type float32 is not JSON serializable` (transformers 5.23.0).",
    fix="Use dict, list, str, int, float, bool and None, with strings as keys.",
)
def the_state_is_json(case: Case) -> None:
    """At any time, the state has only types that JSON restores unchanged."""
    callback = case.make()
    training = case.training(callback)
    _require_json(callback)
    training.begin()
    _require_json(callback)
    for _ in training.steps(save=True):
        _require_json(callback)
    training.finish()
    _require_json(callback)


@_state_rule(
    "STA-003",
    why="In Composer's checkpoints, two callbacks of one class share an entry. In transformers', "
    "the oldest entries win (huggingface/transformers#33875).",
    fix="Store the state on the object, not on its class.",
)
def callbacks_of_one_class_do_not_share_state(case: Case) -> None:
    """A second callback of the class does not change the state of the first one."""
    first, second = case.make(), case.make()
    case.training(first).run()
    before = case.states_of(first)
    case.training(second).run()
    after = case.states_of(first)
    require(after == before, f"the training of the second callback changed {before} to {after}")


@_state_rule(
    "STA-004",
    why="A loop may save before the first step, and restores callbacks before their training "
    "begins (huggingface/transformers#32115).",
    fix="Set every attribute of the state in the constructor.",
)
def saves_and_restores_at_any_time(case: Case) -> None:
    """The state can be saved and restored before, during and after a training."""
    callback = case.make()
    training = case.training(callback)
    case.restore(case.make(), case.states_of(callback))
    for advance in (training.begin, lambda: training.step({"loss": 0.5}), training.end):
        advance()
        case.restore(case.make(), case.states_of(callback))


@_state_rule(
    "STA-005",
    why="If an unknown field is an error, checkpoints of newer versions cannot be loaded "
    "(OpenGVLab/InternVL#558, transformers 5.23.0).",
    fix="Read known entries by name, and ignore the others.",
)
def loads_the_state_of_a_newer_version(case: Case) -> None:
    """Loading a state ignores unknown entries."""
    callback = case.make()
    case.training(callback).run()
    states = case.states_of(callback)
    for state in states.values():
        state.get("attributes", state)["of_a_newer_version"] = {"a": [1, None]}
    case.restore(case.make(), states)


@_state_rule(
    "STA-006",
    why="The state in a checkpoint belonged to another step (Lightning-AI/pytorch-lightning#1464).",
    fix="Return copies of lists and dicts that change later.",
)
def a_saved_state_does_not_change(case: Case) -> None:
    """A saved state does not change while the training continues."""
    callback = case.make()
    training = case.begin(callback)
    steps = training.steps()
    next(steps), next(steps)
    state = _raw_state(callback)
    before = deepcopy(state)
    for _ in steps:
        pass
    training.finish()
    require(state == before, f"{before!r} became {state!r} while the training continued")


@rule(
    "STA-007",
    unless="state",
    why="Nobody notices a check that is skipped silently. The tests of a released library ran 1 of "
    "47 checks and passed (scikit-learn/scikit-learn#33003).",
    fix="Claim the capability `state`, or remove state_dict and load_state_dict.",
)
def claims_its_state(case: Case) -> None:
    """A callback that saves state in checkpoints claims the capability `state`."""
    callback = case.make()
    states = case.states_of(callback)
    require(not states, f"{type(callback).__name__} does not claim its state: {states}")


@rule(
    "STA-008",
    why="A callback with its own counter counts from 0 after a resume. It then stops, saves or "
    "changes the training at the wrong steps (keras-team/keras#14862).",
    fix="Save what the requests depend on in state_dict, or derive them from `state`.",
)
def a_resumed_training_gets_the_same_requests(case: Case) -> None:
    """After a resume, a callback makes the same requests as in an uninterrupted training."""
    full, twin = (_FullTraining(case) for _ in range(2))
    if full.requests != twin.requests:
        return  # the requests do not depend on the training alone
    for step in full.checkpoints():
        resumed = full.resumed_at(step)
        expected = [r for r in full.requests if int(r.rpartition(" ")[2]) > step]
        require(
            resumed.requests == expected,
            f"resumed at step {step}, it requested {resumed.requests}; in an uninterrupted "
            f"training, it requested {expected}",
        )


@_state_rule(
    "STA-009",
    why="A state that is saved but not loaded, or saved in part, is noticed only when somebody "
    "compares a resumed run with an uninterrupted one (pytorch/ignite#3535).",
    fix="Save all accumulated values in state_dict, and restore all of them.",
)
def a_resumed_training_ends_with_the_same_state(case: Case) -> None:
    """After a resumed training, the state and the public attributes are as after a full one.

    The rule compares only values that are equal after two full trainings. It skips trackers,
    whose state depends on their store.
    """
    if case.subject_is_a_tracker:
        return
    full, twin = (_FullTraining(case) for _ in range(2))
    for step in full.checkpoints():
        callback = full.resumed_at(step).callbacks[0]
        for kind, read in (("state", _flat_state), ("attributes", public_attributes)):
            expected = stable_parts(read(full.callback), read(twin.callback))
            _require_equal(kind, step, read(callback), expected)


@rule(
    "STA-010",
    needs=("alters",),
    why="If averaged weights, a warm-up or unfreezing restart after a resume, they train a "
    "different model (Lightning-AI/pytorch-lightning#6891, Lightning-AI/pytorch-lightning#21901).",
    fix="Save what the change depends on in state_dict, or derive it from `state`.",
)
def a_resumed_training_trains_the_same_model(case: Case) -> None:
    """With a callback that alters the model, a resumed training ends with the same weights."""
    full, twin = (_FullTraining(case) for _ in range(2))
    if full.weights != twin.weights:
        return  # the weights do not depend on the training alone
    for step in full.checkpoints():
        _require_equal("weights", step, weights_of(full.resumed_at(step)), full.weights)


@_state_rule(
    "STA-011",
    why="transformers constructs a callback from its state alone. A missing argument of the "
    "constructor ends the resumed training (huggingface/transformers#28544).",
    fix="In `state()`, return all arguments of the constructor as `args`, and what changes as "
    "`attributes`.",
)
def an_exported_state_makes_the_callback(case: Case) -> None:
    """`from_state` of an `ExportableState` makes a callback from the result of `state()`.

    The rule passes for a callback without these two methods.
    """
    callback = case.make()
    if not (hasattr(callback, "from_state") and hasattr(callback, "state")):
        return
    case.training(callback).run()
    state = json.loads(json.dumps(callback.state()))
    try:
        made = type(callback).from_state(deepcopy(state))
    except Exception as error:
        raise ContractViolation(f"from_state({state!r}) raised {error!r}") from error
    lacks = [name for name in state["attributes"] if not hasattr(made, name)]
    require(not lacks, f"made from {state!r}, it lacks {lacks}")


@rule(
    "STA-012",
    why="A resumed training that opens its log with mode 'w' deletes the log of the hours before "
    "(roboflow/rf-detr#1321). Lightning's CSVLogger deletes its file.",
    fix="Append if state.global_step is not 0 when the training begins.",
)
def a_resumed_training_keeps_its_files(case: Case) -> None:
    """After a resume, a file still has the lines that it had at the checkpoint.

    The rule checks files that only grow, by whole lines.
    """
    if case.subject_is_a_tracker:
        return
    first = case.make()
    interrupted = case.begin(first, max_steps=_STEPS)
    states: dict[str, Any] | None = None
    at_checkpoint: dict[str, bytes] = {}
    for step in interrupted.steps(save=True):
        if step == 4:
            states = case.states_of(first)
            at_checkpoint = files_outside_checkpoints(case.output_dir)
        if step == 5:
            break
    interrupted.end(OUT_OF_MEMORY)
    before = files_outside_checkpoints(case.output_dir)
    resumed = case.resume(case.make(), states, 4, interrupted=interrupted, max_steps=_STEPS)
    resumed.run(save=True)
    after = files_outside_checkpoints(case.output_dir)
    lost = [
        name
        for name, content in at_checkpoint.items()
        if content.count(b"\n") > 1
        and before.get(name, b"").startswith(content)
        and not {*content.splitlines()} <= {*after.get(name, b"").splitlines()}
    ]
    require(not lost, f"these files lost lines from before the checkpoint: {lost}")


class _FullTraining:
    """An uninterrupted training, and the checkpoints of its steps.

    Checkpoints have the model, its optimizer and its schedule. The random generators are seeded
    before each step, also in a resumed training.

    Args:
        case: The case.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.callback = case.make()
        self.states: dict[int, dict[str, Any]] = {}
        self.models: dict[int, Any] = {}
        with restored_process():
            seed_generators()
            training = case.begin(self.callback, kind=ObservedTraining, max_steps=_STEPS)
            for step in training.steps(save=True):
                if step in _CHECKPOINTS:
                    self.states[step] = case.states_of(self.callback)
                    self.models[step] = [deepcopy(p.state_dict()) for p in _saved_parts(training)]
                seed_generators()
            training.finish()
        assert isinstance(training, ObservedTraining)
        self.training = training
        self.requests = training.requests
        self.weights = weights_of(training)

    def checkpoints(self) -> list[int]:
        """Return the steps at which a training can be resumed."""
        return [step for step in self.states if step < self.training.state.global_step]

    def resumed_at(self, step: int) -> ObservedTraining:
        """Resume a training from the checkpoint of a step, and return it after its end."""
        with restored_process():
            resumed = self.case.resume(
                self.case.make(),
                self.states[step],
                step,
                interrupted=self.training,
                kind=ObservedTraining,
                max_steps=_STEPS,
            )
            for part, state in zip(_saved_parts(resumed), self.models[step], strict=True):
                part.load_state_dict(deepcopy(state))
            seed_generators()
            resumed.begin()
            for _ in resumed.steps(save=True):
                seed_generators()
            resumed.finish()
        assert isinstance(resumed, ObservedTraining)
        return resumed


def _require_equal(what: str, step: int, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Require equal values at the end of a resumed training. The message names two at most."""
    seen = [*deviations(found, expected).values()]
    more = f"; and {len(seen) - 2} others" if len(seen) > 2 else ""
    require(
        not seen, f"resumed at step {step}, it ended with other {what}: {'; '.join(seen[:2])}{more}"
    )


def _saved_parts(training: Training) -> list[Any]:
    """Return the model, the optimizer and the schedule, as far as they have a state."""
    parts = (training.model, training.learner.optimizer, training.learner.lr_scheduler)
    return [part for part in parts if hasattr(part, "load_state_dict")]


def _flat_state(callback: Any) -> dict[str, Any]:
    return flattened({"": _raw_state(callback)})


def _raw_state(callback: Any) -> dict[str, Any]:
    """Return the state that the callback saves, through either of the two interfaces."""
    if callable(getattr(callback, "state_dict", None)):
        state = callback.state_dict()
    else:
        state = callback.state()["attributes"]
    require(isinstance(state, dict), f"its state is not a dict, but {state!r}")
    return state  # type: ignore[no-any-return]


def _require_json(callback: Any) -> None:
    unsupported = list(_not_json(_raw_state(callback), "state"))
    require(not unsupported, f"JSON does not support {', '.join(unsupported)}")


def _not_json(value: Any, name: str) -> Iterator[str]:
    """Yield each part of `value` that JSON would change."""
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
