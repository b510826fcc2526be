"""Trainings that look at something before and after each call, or that are compared as a whole."""

from __future__ import annotations

from collections.abc import Callable, Generator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import sleep
from typing import Any

from callback_contract._case import Case
from callback_contract._process import difference, files_below, silence
from callback_contract._training import DIED, Training
from callback_contract._violation import ContractViolation, require
from callback_core import CallbackHandler, TrainerState

Look = Callable[[Training, dict[str, Any]], Any]
"""Returns what must not change, of a training and of an event's keywords."""

FLAGS = (
    "should_training_stop",
    "should_epoch_stop",
    "should_save",
    "should_evaluate",
    "should_log",
)


class Watched(Training):
    """A training in which no call of a callback may change what `look` returns."""

    what: str
    look: Look

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        """Call the callback, and compare."""
        before = deepcopy(self.look(self, keywords))
        answer = super().call(callback, event, keywords)
        after = self.look(self, keywords)
        name = f"{type(callback).__name__}.{event}"
        require(before == after, f"{name} changed {self.what}: {_changes(before, after)}")
        return answer


def watch(case: Case, what: str, look: Look, state: TrainerState | None = None) -> None:
    """Train new callbacks through every event, in which nothing that `look` returns may change."""
    kind = type("WatchedFor", (Watched,), {"what": what, "look": staticmethod(look)})
    case.live_and_stop(kind=kind, state=state, max_steps=12)


def _changes(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(map(str, difference(before, after)))
    return f"{before!r} became {after!r}"


def another_rank(*, main_of_its_node: bool = False) -> TrainerState:
    """Return the state of a process that is not the main one of the world."""
    return TrainerState(is_local_process_zero=main_of_its_node, is_world_process_zero=False)


@dataclass
class Behaviour:
    """What can be seen of a callback in a training.

    Attributes:
        asked: The flags that it switched on, with the event and the step.
        printed: What it wrote to standard output.
        files: What it wrote below the directory of the training.
        attributes: Its public attributes of plain types, after the training.
        state: What it keeps in a checkpoint, after the training.
    """

    asked: list[str] = field(default_factory=list)
    printed: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def stable(self, twin: Behaviour) -> dict[str, Any]:
        """Return the parts that are the same for a callback that was made like this one."""
        mine, its = self._parts(), twin._parts()
        return {name: value for name, value in mine.items() if its.get(name, _NONE) == value}

    def differs(self, expected: dict[str, Any]) -> dict[str, str]:
        """Return the parts in which this differs from the stable ones of another, described."""
        mine = self._parts()
        return {
            name: f"{name} is {_short(mine.get(name))}, not {_short(value)}"
            for name, value in expected.items()
            if mine.get(name, _NONE) != value
        }

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {"what it asked for": self.asked, "what it printed": self.printed}
        parts["the names of its files"] = sorted(self.files)
        parts |= {f"the file {name}": content for name, content in self.files.items()}
        parts |= {f"its attribute {name}": value for name, value in self.attributes.items()}
        parts |= {f"its state {name!r}": value for name, value in self.state.items()}
        return parts


_NONE = object()


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:100]} … {text[-100:]}"


class Observed(Training):
    """A training that notes what callbacks ask for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked: list[str] = []

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        """Call the callback, and note which flags it has switched on."""
        before = flags(self.control)
        answer = super().call(callback, event, keywords)
        for flag in sorted(flags(self.control) - before):
            self.asked.append(f"{flag} in {event} at step {self.state.global_step}")
        return answer


class AsInALoop(Training):
    """A training whose callbacks are called by a handler: it logs the errors of isolated ones."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            self._handlers = {
                id(callback): CallbackHandler([callback], self.model, None, None, None)
                for callback in self.callbacks
            }
        except (TypeError, ValueError) as error:
            raise ContractViolation(f"a loop refuses it: {error}", cause=f"{error}") from error

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        """Call the callback by its handler."""
        named_like_it = type(type(callback).__name__, (_Calling,), {})
        return super().call(named_like_it(self._handlers[id(callback)]), event, keywords)


class _Calling:
    """Calls events of a handler by their names."""

    def __init__(self, handler: CallbackHandler) -> None:
        self.handler = handler

    def __getattr__(self, event: str) -> Any:
        def call(args: Any, state: Any, control: Any, **keywords: Any) -> Any:
            return self.handler.call_event(event, args, state, control, **keywords)

        return call


def flags(control: Any) -> set[str]:
    """Return the flags that are on."""
    return {flag for flag in FLAGS if getattr(control, flag)}


class Observation:
    """A training of a callback in a directory of its own, and what can be seen of it.

    Args:
        case: The case.
        folder: The name of the directory.
        callback: The callback.
        pause: Seconds that the training rests after its first step.
    """

    def __init__(self, case: Case, folder: str, callback: Any, pause: float = 0.0) -> None:
        self.case, self.callback, self.pause = case, callback, pause
        self.folder = case.folder / folder
        self.folder.mkdir()
        args = case.arguments(output_dir=str(self.folder))
        self.training = case.training(callback, kind=Observed, args=args, max_steps=8)

    def turns(self) -> Generator[str, None, None]:
        """Train, and yield after each step; what it prints meanwhile is yielded."""
        with silence() as (output, _):
            self.training.begin()
        yield output.getvalue()
        steps = self.training.steps(save=True)
        while True:
            if self.training.state.global_step == 1:
                sleep(self.pause)
            with silence() as (output, _):
                over = next(steps, None) is None
                if over:
                    self.training.finish()
            yield output.getvalue()
            if over:
                return

    def behaviour(self, printed: str) -> Behaviour:
        """Return what was seen."""
        assert isinstance(self.training, Observed)
        seen = Behaviour(self.training.asked, printed.replace(str(self.folder), "<folder>"))
        if self.case.subject_is_a_tracker:
            return seen  # what else it has tells of its store, which other rules read
        place = str(self.folder).encode()
        return replace(
            seen,
            files={
                name: content.replace(place, b"<folder>")
                for name, content in files_of_its_own(self.folder).items()
            },
            attributes=public_attributes(self.callback),
            state=flat_states(self.case.states_of(self.callback)),
        )


def observe(case: Case, folder: str, callback: Any, pause: float = 0.0) -> Behaviour:
    """Train a callback in a directory of its own, and return what was seen."""
    observation = Observation(case, folder, callback, pause)
    return observation.behaviour("".join(observation.turns()))


def observe_in_turns(case: Case, folder: str, *callbacks: Any) -> list[Behaviour]:
    """Train callbacks in trainings that take turns, and return what was seen of each."""
    observations = [Observation(case, f"{folder}-{n}", c) for n, c in enumerate(callbacks)]
    printed = ["" for _ in callbacks]
    turns = [observation.turns() for observation in observations]
    while True:
        wrote = [next(turn, None) for turn in turns]
        printed = [text + (new or "") for text, new in zip(printed, wrote, strict=True)]
        if all(new is None for new in wrote):
            break
    return [o.behaviour(text) for o, text in zip(observations, printed, strict=True)]


def cut_short(case: Case, folder: str, callback: Any, *, notified: bool) -> None:
    """Begin a training that dies in its third step.

    Args:
        case: The case.
        folder: The name of its directory.
        callback: The callback.
        notified: Whether the loop notifies the callback, by `on_exception` and `on_train_end`.
    """
    observation = Observation(case, folder, callback)
    turns = observation.turns()
    for _ in range(4):
        next(turns)
    turns.close()
    with silence():
        observation.training.fire("on_step_begin")
        if notified:
            observation.training.end(DIED)


_PLAIN = (bool, int, float, str, type(None))


def public_attributes(callback: Any) -> dict[str, Any]:
    """Return copies of a callback's public attributes of plain types, and of containers of them."""
    found = getattr(callback, "__dict__", {})
    return {
        name: repr(value)
        for name, value in found.items()
        if not name.startswith("_") and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, [*value, *value.values()]))
    if type(value).__name__ in ("list", "tuple", "set", "frozenset", "deque"):
        return all(map(_is_plain, value))
    return type(value) in _PLAIN


def flat_states(states: dict[str, Any], name: str = "") -> dict[str, Any]:
    """Return the entries of a callback's state, those of nested dicts under joined names."""
    flat: dict[str, Any] = {}
    for key, value in states.items():
        if isinstance(value, dict):
            flat |= flat_states(value, f"{name}{key}.")
        else:
            flat[f"{name}{key}"] = repr(value)
    return flat


def model_state(training: Training) -> dict[str, Any]:
    """Return what a callback must not change of the model, its optimizer and its schedule."""
    model = training.model
    found: dict[str, Any] = {"its configuration": _configuration(model)}
    if not hasattr(model, "named_modules"):
        own = {n: v for n, v in vars(model).items() if n not in ("training", "config")}
        return found | {f"its {name}": deepcopy(value) for name, value in own.items()}
    found |= {f"the weights {name}": value for name, value in weights_of(training).items()}
    for name, weight in model.named_parameters():
        grad = None if weight.grad is None else weight.grad.detach().tolist()
        found |= {f"the gradient of {name}": grad, f"{name}.requires_grad": weight.requires_grad}
    for name, module in model.named_modules():
        public = {n for n in vars(module) if not n.startswith("_") and n != "training"}
        found[f"the attributes of {name or 'the model'}"] = sorted(public)
        found[f"the modules of {name or 'the model'}"] = [
            (child, id(part)) for child, part in module.named_children()
        ]
    optimizer, schedule = training.learner.optimizer, training.learner.lr_scheduler
    found["the optimizer's groups"] = [
        {n: v for n, v in group.items() if n != "params"} for group in optimizer.param_groups
    ]
    found["the optimizer's parameters"] = [
        [id(p) for p in group["params"]] for group in optimizer.param_groups
    ]
    found["the optimizer's state"] = repr(optimizer.state_dict()["state"])
    found["the schedule"] = repr(schedule.state_dict())
    return found


def weights_of(training: Training) -> dict[str, Any]:
    """Return copies of all weights and buffers of the model."""
    model = training.model
    if not hasattr(model, "state_dict"):
        return {"weights": deepcopy(model.weights)}
    return {name: value.tolist() for name, value in model.state_dict().items()}


def modes(training: Training) -> dict[str, bool]:
    """Return which modules of the model are in the mode of training."""
    model = training.model
    if hasattr(model, "named_modules"):
        return {name or "the model": module.training for name, module in model.named_modules()}
    return {"the model": model.training}


def model_hooks(training: Training) -> dict[str, int]:
    """Return how many hooks the model, its weights and its optimizer have, by kind."""
    model = training.model
    found: dict[str, int] = {}
    if not hasattr(model, "named_modules"):
        return found
    for name, module in model.named_modules():
        for kind, hooks in vars(module).items():
            if kind.endswith("hooks") and hasattr(hooks, "__len__"):
                found[f"{kind} of {name or 'the model'}"] = len(hooks)
        found[f"the forward of {name or 'the model'}"] = id(module.__dict__.get("forward"))
    for name, weight in model.named_parameters():
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            found[f"{kind} of {name}"] = len(getattr(weight, kind, None) or ())
    for kind, hooks in vars(training.learner.optimizer).items():
        if kind.endswith("hooks") and hasattr(hooks, "__len__"):
            found[f"{kind} of the optimizer"] = len(hooks)
    return found


def _configuration(model: Any) -> Any:
    config = getattr(model, "config", None)
    return deepcopy(vars(config)) if hasattr(config, "__dict__") else repr(config)


def files_of_its_own(folder: Path) -> dict[str, bytes]:
    """Return the files below a training's directory that are in no checkpoint."""
    found = files_below(folder)
    return {name: content for name, content in found.items() if not name.startswith("checkpoint-")}
