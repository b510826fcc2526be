"""Trainings that compare state before and after each call, or the behaviour of whole trainings."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._isolation import collected_warnings
from callback_contract._process import captured_output, difference, files_below, threads
from callback_contract._training import OUT_OF_MEMORY, Training
from callback_contract._violation import ContractViolation, require
from callback_core import CallbackHandler, TrainerState

FLAGS = (
    "should_training_stop",
    "should_epoch_stop",
    "should_save",
    "should_evaluate",
    "should_log",
)

Probe = Callable[[Training, dict[str, Any]], Any]
"""Returns what must not change, from a training and an event's keywords."""


class WatchedTraining(Training):
    """A training in which no call of a callback may change what `probe` returns."""

    subject: str
    probe: Probe

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        """Call the callback, and compare."""
        before = deepcopy(self.probe(self, keywords))
        answer = super().call(callback, event, keywords)
        after = self.probe(self, keywords)
        name = f"{type(callback).__name__}.{event}"
        require(before == after, f"{name} changed {self.subject}: {_changes(before, after)}")
        return answer


def watch(case: Case, subject: str, probe: Probe, state: TrainerState | None = None) -> None:
    """Require that no event of a new callback changes what `probe` returns.

    Args:
        case: The case.
        subject: What `probe` returns, for messages.
        probe: Returns what must not change.
        state: The state at the beginning of the training.
    """
    kind = type("Watched", (WatchedTraining,), {"subject": subject, "probe": staticmethod(probe)})
    case.exercise(kind=kind, state=state, max_steps=12)


def _changes(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(map(str, difference(before, after)))
    return f"{before!r} became {after!r}"


def another_rank(*, main_of_its_node: bool = False) -> TrainerState:
    """Return the state of a process that is not the main process of the training."""
    return TrainerState(is_local_process_zero=main_of_its_node, is_world_process_zero=False)


class ObservedTraining(Training):
    """A training that records the requests of callbacks.

    Attributes:
        requests: The flags that callbacks set, each with the event and the step. A flag may have
            been on before, because the loop itself had requested the same.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.requests: list[str] = []

    def call(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        """Call the callback, and record the flags that it set."""
        before = self._requests_by_flag()
        answer = super().call(callback, event, keywords)
        for flag in sorted(self._requests_by_flag() - before):
            self.requests.append(f"{flag} in {event} at step {self.state.global_step}")
        return answer

    def _requests_by_flag(self) -> Counter[str]:
        return Counter(request.flag for request in self.control.requests)


class HandledTraining(Training):
    """A training that calls each callback through a `CallbackHandler`, which applies `on_error`.

    Attributes:
        durations: The event and the seconds of each call.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.durations: list[tuple[str, float]] = []
        try:
            with collected_warnings():  # each handler warns that it has no DefaultFlowCallback
                self._handlers = {
                    id(callback): CallbackHandler([callback], self.model, None, None, None)
                    for callback in self.callbacks
                }
        except (TypeError, ValueError) as error:
            raise ContractViolation(f"a loop refuses it: {error}", cause=f"{error}") from error

    def _invoke(self, callback: Any, event: str, keywords: dict[str, Any]) -> Any:
        handler, begun = self._handlers[id(callback)], monotonic()
        try:
            return handler.call_event(event, self.args, self.state, self.control, **keywords)
        finally:
            self.durations.append((event, monotonic() - begun))


def flags(control: Any) -> set[str]:
    """Return the flags that are on."""
    return {flag for flag in FLAGS if getattr(control, flag)}


Behaviour = dict[str, Any]
"""What a callback does in a training: requests, output, threads, files, attributes and state."""


def stable_parts(first: Behaviour, second: Behaviour) -> Behaviour:
    """Return the parts that are equal in two behaviours."""
    return {part: first[part] for part in first if part in second and first[part] == second[part]}


def deviations(found: Behaviour, expected: Behaviour) -> dict[str, str]:
    """Return a description of each part of `expected` that `found` lacks or has otherwise."""
    return {
        part: f"{part}: {_abbreviated(found.get(part))}, not {_abbreviated(value)}"
        for part, value in expected.items()
        if part not in found or found[part] != value
    }


def _abbreviated(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 150 else f"{text[:70]} … {text[-70:]}"


class Observation:
    """A training of a callback in a directory of its own.

    Args:
        case: The case.
        folder: The name of the directory.
        callback: The callback.
        pause: Seconds that the training pauses after its first step.
    """

    def __init__(self, case: Case, folder: str, callback: Any, pause: float = 0.0) -> None:
        self.case, self.callback, self.pause = case, callback, pause
        self.folder = case.folder / folder
        self.folder.mkdir()
        self.before = _versions(case.output_dir)
        self.threads: list[str] = []
        args = case.arguments(output_dir=str(self.folder))
        self.training = case.training(callback, kind=ObservedTraining, args=args, max_steps=8)

    def run(self) -> Generator[str, None, None]:
        """Train, and yield the output of each step."""
        with captured_output() as (output, _):
            self.training.begin()
        yield output.getvalue()
        steps = self.training.steps(save=True)
        over = False
        while not over:
            if self.training.state.global_step == 1:
                sleep(self.pause)
            if self.training.state.global_step == 4:
                self.threads = sorted({re.sub(r"\d+", "#", thread.name) for thread in threads()})
            with captured_output() as (output, _):
                over = next(steps, None) is None
                if over:
                    self.training.finish()
            yield output.getvalue()

    def behaviour(self, output: str) -> Behaviour:
        """Return the behaviour of the callback, whose output is given."""
        assert isinstance(self.training, ObservedTraining)
        folder = str(self.folder)
        parts: Behaviour = {"what it requested": self.training.requests}
        parts["what it printed"] = output.replace(folder, "<folder>")
        if self.case.subject_is_a_tracker:
            return parts  # the rest depends on the store, which other rules read
        # One part each: a thread that an SDK has for a moment may be there by chance.
        parts.update({f"its thread {name} at step 4": "running" for name in self.threads})
        files = files_outside_checkpoints(self.folder)
        parts["the names of its files"] = sorted(files)
        for name, content in files.items():
            parts[f"the file {name}"] = content.replace(folder.encode(), b"<folder>")
        for name, (content, time) in _versions(self.case.output_dir).items():
            before, time_before = self.before.get(name, (b"", 0))
            if time != time_before:
                parts[f"the file {name} {IN_OUTPUT_DIR}"] = _Written(before, content)
        for name, value in public_attributes(self.callback).items():
            parts[f"its attribute {name}"] = value
        for name, value in flattened(self.case.states_of(self.callback)).items():
            parts[f"its state {name!r}"] = value
        return parts


IN_OUTPUT_DIR: Final = "in the output_dir of make"
"""The end of the name of a part: a file that a training wrote there."""


class _Written:
    """What a training wrote to a file. It may have begun the file anew, or added to it."""

    def __init__(self, before: bytes, after: bytes) -> None:
        self.after, self.added = after, after.removeprefix(before) or after

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Written) and (
            self.after == other.after or self.added == other.added
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.added)


def _versions(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return for each file outside checkpoints its content and when that was written."""
    found = {}
    for name, content in files_outside_checkpoints(folder).items():
        with suppress(FileNotFoundError):  # another thread may delete it meanwhile
            found[name] = content, (folder / name).stat().st_mtime_ns
    return found


def observe(case: Case, folder: str, callback: Any, pause: float = 0.0) -> Behaviour:
    """Train a callback in a directory of its own, and return its behaviour."""
    observation = Observation(case, folder, callback, pause)
    return observation.behaviour("".join(observation.run()))


def observe_interleaved(case: Case, folder: str, *callbacks: Any) -> list[Behaviour]:
    """Train callbacks in trainings that alternate their steps, and return each behaviour."""
    observations = [Observation(case, f"{folder}-{n}", c) for n, c in enumerate(callbacks)]
    outputs = ["" for _ in callbacks]
    trainings = [observation.run() for observation in observations]
    while True:
        printed = [next(training, None) for training in trainings]
        outputs = [text + (more or "") for text, more in zip(outputs, printed, strict=True)]
        if all(more is None for more in printed):
            break
    return [o.behaviour(text) for o, text in zip(observations, outputs, strict=True)]


def die_in_third_step(case: Case, folder: str, callback: Any, *, notified: bool) -> None:
    """Begin a training that dies in its third step.

    Args:
        case: The case.
        folder: The name of its directory.
        callback: The callback.
        notified: Whether the loop fires `on_exception` and `on_train_end`.
    """
    observation = Observation(case, folder, callback)
    steps = observation.run()
    for _ in range(4):
        next(steps)
    steps.close()
    with captured_output():
        observation.training.fire("on_step_begin")
        if notified:
            observation.training.end(OUT_OF_MEMORY)


_PLAIN = (bool, int, float, str, type(None))


def public_attributes(callback: Any) -> dict[str, Any]:
    """Return a callback's public attributes of plain types, and of containers of them."""
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


@contextmanager
def restored_classes(kind: type) -> Iterator[None]:
    """Restore what the author's classes and their modules keep, at the end of the block.

    This covers numbers, strings and containers of them. Flags stay as they are, because one may
    guard what a process has only once, such as a server.
    """
    package = kind.__module__.partition(".")[0]
    classes = [one for one in kind.__mro__ if one.__module__.partition(".")[0] == package]
    modules = {sys.modules.get(one.__module__) for one in classes}
    kept = [
        (owner, name, value, deepcopy(value))
        for owner in (*classes, *filter(None, modules))
        for name, value in vars(owner).items()
        if not name.startswith("__") and _is_plain(value) and not isinstance(value, bool)
    ]
    yield
    for owner, name, value, before in kept:
        now = vars(owner).get(name)
        if now != before and _is_plain(now) and not isinstance(now, bool):
            if hasattr(value, "clear"):
                value.clear()
                (value.extend if hasattr(value, "extend") else value.update)(before)
            setattr(owner, name, value)


def flattened(states: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the entries of a state as strings, with nested dicts under joined names."""
    flat: dict[str, Any] = {}
    for key, value in states.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = repr(value)
    return flat


def model_state(training: Training) -> dict[str, Any]:
    """Return what a callback must not change in the model, its optimizer and its schedule."""
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
    groups = optimizer.param_groups
    found["the optimizer's groups"] = [
        {name: value for name, value in group.items() if name != "params"} for group in groups
    ]
    found["the optimizer's parameters"] = [[id(p) for p in group["params"]] for group in groups]
    found["the optimizer's state"] = _listed(optimizer.state_dict()["state"])
    found["the schedule"] = repr(schedule.state_dict())
    return found


def _listed(state: Any) -> Any:
    """Return a state with a list for each tensor, whose text would take long to make."""
    if isinstance(state, dict):
        return {name: _listed(value) for name, value in state.items()}
    return state.tolist() if hasattr(state, "tolist") else repr(state)


def weights_of(training: Training) -> dict[str, Any]:
    """Return copies of all weights and buffers of the model."""
    model = training.model
    if not hasattr(model, "state_dict"):
        return {"weights": deepcopy(model.weights)}
    return {name: value.tolist() for name, value in model.state_dict().items()}


def modes(training: Training) -> dict[str, bool]:
    """Return for each module of the model whether it is in training mode."""
    model = training.model
    if hasattr(model, "named_modules"):
        return {name or "the model": module.training for name, module in model.named_modules()}
    return {"the model": model.training}


def model_hooks(training: Training) -> dict[str, int]:
    """Return the number of hooks on the model, its weights and its optimizer, by kind."""
    model = training.model
    found: dict[str, int] = {}
    if not hasattr(model, "named_modules"):
        return found
    for name, module in model.named_modules():
        found |= _hook_counts(module, name or "the model")
        found[f"the forward of {name or 'the model'}"] = id(module.__dict__.get("forward"))
    for name, weight in model.named_parameters():
        for kind in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            found[f"{kind} of {name}"] = len(getattr(weight, kind, None) or ())
    return found | _hook_counts(training.learner.optimizer, "the optimizer")


def _hook_counts(owner: Any, name: str) -> dict[str, int]:
    return {
        f"{kind} of {name}": len(hooks)
        for kind, hooks in vars(owner).items()
        if kind.endswith("hooks") and hasattr(hooks, "__len__")
    }


def _configuration(model: Any) -> Any:
    config = getattr(model, "config", None)
    return deepcopy(vars(config)) if hasattr(config, "__dict__") else repr(config)


def files_outside_checkpoints(folder: Path) -> dict[str, bytes]:
    """Return the files below a training's directory that are in no checkpoint."""
    found = files_below(folder)
    return {name: content for name, content in found.items() if not name.startswith("checkpoint-")}
