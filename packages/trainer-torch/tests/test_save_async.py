"""A checkpoint is written while training goes on, and is the one that would have been written."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP
from safetensors.torch import load_file
from small import trainer, warned
from torch import nn
from training_to_kill import digest

from callback_core import TrainerCallback
from trainer_torch import LoopCallback, SafeTensors, WeightAveragingCallback
from trainer_torch.storage.checkpoint import find_fault, list_checkpoints, read_json
from trainer_torch.testing import At

MEASURED = ("trainer_state.json", "manifest.json", "progress.json")
ASYNC: dict[str, Any] = {"save_async": True, "max_steps": 6, "save_strategy": "steps"}


class Held(LoopCallback):
    """Adds a file that is written only once it is released: a slow disk."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def checkpoint_files(self, model: nn.Module) -> dict[str, Any]:
        return {"held.pt": Waits(self.released)}


class Waits:
    """Waits when it is written. A copy of it is itself."""

    def __init__(self, released: threading.Event) -> None:
        self.released = released

    def __deepcopy__(self, memo: Any) -> Waits:
        return self

    def __reduce__(self) -> Any:
        assert self.released.wait(60)
        return dict, ()


class Sees(TrainerCallback):
    """Notes what it sees of saves."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.saved: list[tuple[int, str, bool]] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        path = Path(kwargs["checkpoint_dir"])
        self.saved.append((state.global_step, path.name, find_fault(path) is None))


def contents(checkpoint: Path) -> dict[str, str]:
    names = sorted(path.name for path in checkpoint.iterdir() if path.name not in MEASURED)
    return {name: digest(checkpoint / name) for name in names}


def test_checkpoints_are_those_that_are_saved_at_once(tmp_path: Path) -> None:
    for name, save_async in (("async", True), ("sync", False)):
        average = WeightAveragingCallback(0.9)
        trainer(tmp_path / name, average, max_steps=5, **EVERY_STEP, save_async=save_async).train()
    found = {name: list_checkpoints(tmp_path / name) for name in ("async", "sync")}
    assert [one.name for one in found["async"]] == [one.name for one in found["sync"]]
    for one, other in zip(*found.values(), strict=True):
        assert contents(one) == contents(other)
        progress = [read_json(path / "progress.json") for path in (one, other)]
        assert all(part.pop("arguments") for part in progress)  # one of them differs
        assert progress[0] == progress[1]
        states = [read_json(path / "trainer_state.json") for path in (one, other)]
        assert states[0]["log_history"] == states[1]["log_history"]
        assert states[0]["stateful_callbacks"] == states[1]["stateful_callbacks"]


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    held, sees = Held(), Sees()
    release = At(4, held.released.set)
    trainer(tmp_path, held, sees, release, **ASYNC, save_steps=2).train()
    # The save of step 4 has waited for that of step 2.
    assert sees.saved[0][:2] == (2, "checkpoint-2")
    assert [step for step, *_ in sees.saved] == [2, 4, 6]
    assert all(is_whole for *_, is_whole in sees.saved)


def test_the_weights_are_those_of_the_step_of_the_save(tmp_path: Path) -> None:
    held = Held()
    weights: list[Any] = []
    made = trainer(tmp_path, held, **ASYNC, save_steps=2)

    def keep() -> None:
        weights.append({name: one.clone() for name, one in made.model.state_dict().items()})

    made.add_callback(At(2, keep))
    made.add_callback(At(3, held.released.set))
    made.train()
    saved = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert all(torch.equal(one, saved[name]) for name, one in weights[0].items())


class ReleasesInTime(TrainerCallback):
    """Releases the deletion of a directory in the second step that begins before its end."""

    def __init__(self, deleted: Path, released: threading.Event) -> None:
        self.deleted = deleted
        self.released = released
        self.steps: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.deleted.exists() and not self.released.is_set():
            self.steps.append(state.global_step)
            if len(self.steps) == 2:
                self.released.set()


def test_training_goes_on_while_a_checkpoint_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, remove = threading.Event(), shutil.rmtree

    def remove_late(directory: Path, *arguments: Any, **options: Any) -> None:
        if Path(directory).suffix == ".deleted":
            assert released.wait(60)
        remove(directory, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", remove_late)
    release = ReleasesInTime(tmp_path / ".checkpoint-2.deleted", released)
    options = {**ASYNC, "max_steps": 12}
    trainer(tmp_path, release, **options, save_steps=2, save_total_limit=1).train()
    assert len(release.steps) == 2
    assert [path.name for path in tmp_path.glob("*checkpoint-*")] == ["checkpoint-12"]


class Broken(LoopCallback):
    """Adds a file that cannot be written, at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.is_due = state.global_step == self.step

    def checkpoint_files(self, model: nn.Module) -> dict[str, Any]:
        unsorted = {"a": torch.ones(2, 3).T}  # which safetensors refuses
        return {"broken.safetensors": SafeTensors(unsorted if self.is_due else {}, {})}


def test_an_error_that_is_not_of_the_disk_ends_the_training(tmp_path: Path) -> None:
    broken, sees = Broken(4), Sees()
    made = trainer(tmp_path, broken, sees, **ASYNC, save_steps=2)
    with pytest.raises(ValueError):
        made.train()
    assert [one.name for one in list_checkpoints(tmp_path)] == ["checkpoint-2"]
    assert [name for _, name, _ in sees.saved] == ["checkpoint-2"]
    assert not list(tmp_path.glob(".checkpoint*"))


def test_a_request_after_the_save_began_is_not_lost(tmp_path: Path) -> None:
    class Asks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_save = state.global_step in (1, 2, 3)

    trainer(tmp_path, Asks(), save_async=True, max_steps=5).train()
    names = {one.name for one in list_checkpoints(tmp_path)}
    assert names == {"checkpoint-1", "checkpoint-2", "checkpoint-3"}


def test_the_best_checkpoint_is_known_once_it_is_complete(tmp_path: Path) -> None:
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1}
    seen: list[str | None] = []

    class Looks(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(state.best_model_checkpoint)

    made = trainer(tmp_path, Looks(), max_steps=5, **{**EVERY_STEP, **best}, save_async=True)
    made.train()
    assert all(one is None or os.path.isdir(one) for one in seen)
    saved = load_file(Path(str(made.state.best_model_checkpoint)) / "model.safetensors")
    assert all(torch.equal(one, saved[name]) for name, one in made.model.state_dict().items())


def test_an_error_of_the_training_waits_for_the_save(tmp_path: Path, caplog: Any) -> None:
    held = Held()

    def fail() -> None:
        threading.Timer(0.1, held.released.set).start()
        raise ZeroDivisionError

    made = trainer(tmp_path, held, At(3, fail), **ASYNC, save_steps=2)
    with pytest.raises(ZeroDivisionError):
        made.train()
    assert [one.name for one in list_checkpoints(tmp_path)] == ["checkpoint-2"]
    assert not any(one.name == "save" for one in threading.enumerate())
    assert any("checkpoint-2" in one for one in warned(caplog)) or made.run.saved_step == 2
