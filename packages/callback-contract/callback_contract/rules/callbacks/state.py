"""State: what a callback keeps in a checkpoint comes back, and a resumed training is no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from callback_contract._case import Case
from callback_contract._process import difference, process_put_back, seed_generators
from callback_contract._registry import rule
from callback_contract._training import DIED, Training
from callback_contract._violation import ContractViolation, require
from callback_contract._watching import (
    Observed,
    files_of_its_own,
    flat_states,
    public_attributes,
    weights_of,
)

_LAST = 12


@rule(
    "STA-001",
    needs=("state",),
    why="EarlyStopping counts again when a training is resumed: Keras' resets itself in "
    "on_train_begin (keras-team/keras#9462, keras-team/keras#14862), and transformers' is restored "
    "with what it began with (huggingface/transformers#28544).",
    mend="Let load_state_dict restore all that state_dict returns, and on_train_begin leave it.",
)
def the_state_comes_back(case: Case) -> None:
    """A new callback that takes over a state still has it when the resumed training begins."""
    first = case.make()
    cut = case.training(first)
    cut.run(save=True)
    states = case.states_of(first)
    ticks = difference(flat_states(states), flat_states(case.states_of(first)))
    second = case.make()
    resumed = case.resumed(second, states, 8, of=cut, max_steps=12)
    saved = {n: v for n, v in flat_states(states).items() if n not in ticks and v != "None"}
    resumed.begin()
    begun = flat_states(case.states_of(second))
    resumed.end()
    new = case.make()
    case.training(new).begin()
    reset = flat_states(case.states_of(new))
    lost = {n: begun[n] for n in saved if saved[n] != begun.get(n) == reset.get(n)}
    require(not lost, f"when the resumed training began, it reset {saved} to {lost}")


@rule(
    "STA-002",
    needs=("state",),
    why="A numpy number in the state is found when the first checkpoint is written: hours in, "
    "`Object of type float32 is not JSON serializable` (transformers 5.23.0).",
    mend="Return dict, list, str, int, float, bool and None; keys are strings.",
)
def the_state_is_json(case: Case) -> None:
    """The state is made of the types that JSON has, so that it is read as it was written.

    So it is before the first step, in the middle of a training and after it.
    """
    callback = case.make()
    training = case.training(callback)
    _require_json(callback)
    training.begin()
    _require_json(callback)
    for _ in training.steps(save=True):
        _require_json(callback)
    training.finish()
    _require_json(callback)


@rule(
    "STA-003",
    needs=("state",),
    why="Two callbacks of one class share an entry in the checkpoints of Composer, and in "
    "transformers' the oldest entries win (huggingface/transformers#33875).",
    mend="Keep the state on the object, not on its class.",
)
def two_of_a_class_have_states_of_their_own(case: Case) -> None:
    """What a second callback of the class does leaves the first one's state as it is."""
    first, second = case.make(), case.make()
    case.training(first).run()
    before = case.states_of(first)
    case.training(second, max_steps=8).run()
    after = case.states_of(first)
    require(after == before, f"the second one's training changed {before} to {after}")


@rule(
    "STA-004",
    needs=("state",),
    why="A checkpoint may be written before the first step, and is restored into callbacks whose "
    "training has not begun (huggingface/transformers#32115).",
    mend="Set in the constructor all that the state is made of.",
)
def has_a_state_at_any_time(case: Case) -> None:
    """The state can be saved and restored before a training, in its middle and after it."""
    callback = case.make()
    case.restore(case.make(), case.states_of(callback))
    training = case.training(callback)
    training.begin()
    case.restore(case.make(), case.states_of(callback))
    training.step({"loss": 0.5})
    case.restore(case.make(), case.states_of(callback))
    training.end()
    case.restore(case.make(), case.states_of(callback))


@rule(
    "STA-005",
    needs=("state",),
    why="A checkpoint of a newer version cannot be loaded if an unknown field is an error "
    "(OpenGVLab/InternVL#558, transformers 5.23.0).",
    mend="Read from the state what you know, by name, and ignore the rest.",
)
def reads_the_state_of_a_newer_version(case: Case) -> None:
    """A state with an entry that this version does not know is loaded without it."""
    callback = case.make()
    case.training(callback).run()
    states = case.states_of(callback)
    for state in states.values():
        state.get("attributes", state)["of_a_newer_version"] = {"a": [1, None]}
    case.restore(case.make(), states)


@rule(
    "STA-006",
    needs=("state",),
    why="The state in a checkpoint was not that of its step (Lightning-AI/pytorch-lightning#1464).",
    mend="Return copies of lists and dicts, not those that change later.",
)
def a_state_that_was_taken_stays(case: Case) -> None:
    """A state that was taken stays the same while the training continues."""
    callback = case.make()
    training = case.training(callback, max_steps=8)
    training.begin()
    steps = training.steps()
    next(steps), next(steps)
    taken = _raw_state(callback)
    before = deepcopy(taken)
    for _ in steps:
        pass
    training.finish()
    require(taken == before, f"{before!r} became {taken!r} while the training continued")


@rule(
    "STA-007",
    unless="state",
    why="Nobody misses a check that is skipped in silence: one release of a library's suite ran 1 "
    "of 47 tests, and was green (scikit-learn/scikit-learn#33003).",
    mend="Claim the capability `state`, or remove state_dict and load_state_dict.",
)
def claims_its_state(case: Case) -> None:
    """A callback that keeps something in checkpoints claims the capability `state`."""
    callback = case.make()
    states = case.states_of(callback)
    require(not states, f"{type(callback).__name__} does not claim its state: {states}")


@rule(
    "STA-008",
    why="A callback that counts by itself counts from 0 after a resume: it stops, saves or changes "
    "the training at other steps than it would have (keras-team/keras#14862).",
    mend="Keep in state_dict what the requests depend on, or derive them from `state`.",
)
def a_resumed_training_is_asked_for_the_same(case: Case) -> None:
    """What a callback asks for after a resume is what it asks for in an uncut training."""
    uncut, again = (_Uncut(case) for _ in range(2))
    if uncut.asked != again.asked:
        return  # what it asks for depends on more than the training
    for cut in uncut.cuts():
        resumed = uncut.resumed_at(cut)
        expected = [asked for asked in uncut.asked if _step_of(asked) > cut]
        require(
            resumed.asked == expected,
            f"resumed at step {cut}, it asked for {resumed.asked}; the uncut training was asked "
            f"for {expected}",
        )


@rule(
    "STA-009",
    needs=("state",),
    why="A state that is saved and never used, or only half of which is saved, goes unnoticed "
    "until somebody compares a resumed run with an uncut one (pytorch/ignite#3535).",
    mend="Keep in state_dict all that a training adds up, and restore all of it.",
)
def a_resumed_training_ends_with_the_same_state(case: Case) -> None:
    """After a resumed training, the state and the public attributes are those after an uncut one.

    Only what is equal after two uncut trainings is compared, and nothing of trackers: what they
    keep tells of their store.
    """
    if case.subject_is_a_tracker:
        return
    uncut, again = (_Uncut(case) for _ in range(2))
    for cut in uncut.cuts():
        callback = uncut.resumed_at(cut).callbacks[0]
        for what, look in (("state", _flat_state), ("attributes", public_attributes)):
            expected, twin, found = (
                look(one) for one in (uncut.callback, again.callback, callback)
            )
            other = {
                name: f"{found.get(name)}, not {value}"
                for name, value in expected.items()
                if twin.get(name) == value and found.get(name) != value
            }
            require(not other, f"cut and resumed at step {cut}, its {what} ended with {other}")


@rule(
    "STA-010",
    needs=("alters",),
    why="Averaged weights, warm-ups and unfreezing that begin again after a resume train another "
    "model (Lightning-AI/pytorch-lightning#6891, Lightning-AI/pytorch-lightning#21901).",
    mend="Keep in state_dict what the change depends on, or derive it from `state`.",
)
def a_resumed_training_trains_the_same_model(case: Case) -> None:
    """A callback that alters the model leaves equal weights after a resume and without a cut."""
    uncut, again = (_Uncut(case, like_a_checkpoint=True) for _ in range(2))
    if uncut.weights != again.weights:
        return  # what it does depends on more than the training
    for cut in uncut.cuts():
        require(
            weights_of(uncut.resumed_at(cut)) == uncut.weights,
            f"cut and resumed at step {cut}, the training ended with other weights",
        )


@rule(
    "STA-011",
    needs=("state",),
    why="transformers makes a callback from its state alone: one that lacks an argument of the "
    "constructor ends the resumed training (huggingface/transformers#28544).",
    mend="Give `state()` all arguments of the constructor as `args`, and what changes as "
    "`attributes`.",
)
def an_exportable_state_makes_the_callback(case: Case) -> None:
    """The `state()` of an `ExportableState` makes a callback by `from_state`.

    A callback without these two methods keeps its state otherwise, and passes.
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
    why="A log that is opened with mode 'w' when a training is resumed loses the hours before "
    "(roboflow/rf-detr#1321; Lightning's CSVLogger deletes its file).",
    mend="Append if state.global_step is not 0 when the training begins.",
)
def a_resumed_training_keeps_its_files(case: Case) -> None:
    """Lines that a callback wrote before the checkpoint are in its file after a resume.

    Only files that grow by whole lines in a training are looked at.
    """
    first = case.make()
    cut = case.training(first, max_steps=12)
    cut.begin()
    steps = cut.steps(save=True)
    at_the_cut: dict[str, bytes] = {}
    states = None
    for step in steps:
        if step == 4:
            states, at_the_cut = case.states_of(first), _own_files(case)
        if step == 5:
            break
    cut.end(DIED)
    grown = {
        name: content
        for name, content in at_the_cut.items()
        if content.count(b"\n") > 1 and _own_files(case).get(name, b"").startswith(content)
    }
    resumed = case.resumed(case.make(), states, 4, of=cut, max_steps=12)
    resumed.begin()
    resumed.complete(save=True)
    after = _own_files(case)
    lost = [
        name for name, content in grown.items() if not _has_lines(after.get(name, b""), content)
    ]
    require(not lost, f"what it wrote before the checkpoint is gone from {lost}")


def _own_files(case: Case) -> dict[str, bytes]:
    """Return the files that a callback has written which is no tracker."""
    return {} if case.subject_is_a_tracker else files_of_its_own(case.output_dir)


def _has_lines(content: bytes, lines: bytes) -> bool:
    return {*lines.splitlines()} <= {*content.splitlines()}


class _Uncut:
    """A training without a cut, and what a checkpoint of each of its steps holds."""

    def __init__(self, case: Case, like_a_checkpoint: bool = False) -> None:
        self.case = case
        self.callback = case.make()
        self.states: dict[int, dict[str, Any]] = {}
        self.models: dict[int, Any] = {}
        with process_put_back():
            seed_generators()
            training = case.training(self.callback, kind=Observed, max_steps=_LAST)
            training.begin()
            for step in training.steps(save=True):
                self.states[step] = case.states_of(self.callback)
                if like_a_checkpoint:
                    self.models[step] = _parts_of(training)
                    seed_generators()
            training.finish()
        assert isinstance(training, Observed)
        self.training = training
        self.asked = training.asked
        self.weights = weights_of(training) if like_a_checkpoint else None

    def cuts(self) -> list[int]:
        """Return the steps of checkpoints that a training resumes at."""
        return [step for step in (2, 4, 8) if step < self.training.state.global_step]

    def resumed_at(self, cut: int) -> Observed:
        """Return the training that resumes at a step, once it has ended."""
        callback = self.case.make()
        with process_put_back():
            resumed = self.case.resumed(
                callback, self.states[cut], cut, of=self.training, kind=Observed, max_steps=_LAST
            )
            if cut in self.models:
                _restore_parts(resumed, self.models[cut])
            seed_generators()
            resumed.begin()
            for _ in resumed.steps(save=True):
                if self.models:
                    seed_generators()
            resumed.finish()
        assert isinstance(resumed, Observed)
        return resumed


def _step_of(asked: str) -> int:
    return int(asked.rpartition(" ")[2])


def _flat_state(callback: Any) -> dict[str, Any]:
    return flat_states({"": _raw_state(callback)})


def _parts_of(training: Training) -> Any:
    """Return what a checkpoint holds of the model, its optimizer and its schedule."""
    parts = (training.model, training.learner.optimizer, training.learner.lr_scheduler)
    return [deepcopy(p.state_dict()) for p in parts if hasattr(p, "load_state_dict")]


def _restore_parts(training: Training, saved: Any) -> None:
    parts = (training.model, training.learner.optimizer, training.learner.lr_scheduler)
    loaders = [part for part in parts if hasattr(part, "load_state_dict")]
    for part, state in zip(loaders, saved, strict=True):
        part.load_state_dict(deepcopy(state))


def _raw_state(callback: Any) -> dict[str, Any]:
    """Return what the callback gives a checkpoint, by whichever of the two interfaces it has."""
    if callable(getattr(callback, "state_dict", None)):
        state = callback.state_dict()
    else:
        state = callback.state()["attributes"]
    require(isinstance(state, dict), f"its state is no dict, but {state!r}")
    return state  # type: ignore[no-any-return]


def _require_json(callback: Any) -> None:
    strange = list(_not_json(_raw_state(callback), "state"))
    require(not strange, f"JSON does not have {', '.join(strange)}")


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
