"""What a callback does in a training, for comparisons of one training with another."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any, Final

from callback_contract._case import Case
from callback_contract._class_state import is_plain
from callback_contract._process import captured_output, files_below, threads
from callback_contract._training import OUT_OF_MEMORY
from callback_contract._watching import ObservedTraining

Behaviour = dict[str, Any]
"""What a callback does in a training: requests, output, logs, threads, files, attributes, state."""


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
        self.before = {} if case.subject_is_a_tracker else _versions(case.output_dir)
        self.threads: set[str] = set()
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
                self.threads = {re.sub(r"\d+", "#", thread.name) for thread in threads()}
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
        parts |= {f"its log {name!r}": values for name, values in self.training.logged.items()}
        if self.case.subject_is_a_tracker:
            return parts  # the rest depends on the store, which other rules read
        # One part each: a thread that an SDK has for a moment may be there by chance.
        parts.update({f"its thread {name} at step 4": "running" for name in sorted(self.threads)})
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
    """What a training wrote to a file. It may have replaced the file, or added to it."""

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


def public_attributes(callback: Any) -> dict[str, Any]:
    """Return a callback's public attributes of plain types, and of containers of them."""
    found = getattr(callback, "__dict__", {})
    return {
        name: repr(value)
        for name, value in found.items()
        if not name.startswith("_") and is_plain(value)
    }


def flattened(states: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the entries of a state as strings, with nested dicts under joined names."""
    flat: dict[str, Any] = {}
    for key, value in states.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = repr(value)
    return flat


def files_outside_checkpoints(folder: Path) -> dict[str, bytes]:
    """Return the files below a training's directory that are in no checkpoint."""
    found = files_below(folder)
    return {name: content for name, content in found.items() if not name.startswith("checkpoint-")}
