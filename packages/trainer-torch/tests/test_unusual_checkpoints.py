"""Checkpoints that were renamed, moved, damaged or written by a clock that was wrong."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP, StopAt, weights
from small import trainer, warned

from callback_core import TrainerCallback
from trainer_torch.model.weights import MODEL
from trainer_torch.storage.checkpoint import find_fault, list_checkpoints

BEST: dict[str, Any] = {
    **EVERY_STEP,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "learning_rate": 5.0,  # the loss rises, so the first checkpoint is the best
    "load_best_model_at_end": True,
}


class DoesAt(TrainerCallback):
    """Calls a function at the end of a step."""

    def __init__(self, step: int, do: Callable[[], object]) -> None:
        self.step, self.do = step, do

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.do()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["best-model", "lr-4", "latest"])
def test_a_signal_saves_a_checkpoint_after_resuming_from_one_of_any_name(
    tmp_path: Path, name: str
) -> None:
    trainer(tmp_path / "first", max_steps=3, **EVERY_STEP).train()
    if name == "latest":
        (tmp_path / "first" / name).symlink_to("checkpoint-3")
    else:
        (tmp_path / "first" / "checkpoint-3").rename(tmp_path / "first" / name)
    stopped = DoesAt(4, lambda: signal.raise_signal(signal.SIGTERM))
    resumed = trainer(tmp_path / "second", stopped, max_steps=6, enable_jit_checkpoint=True)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGTERM)):
        resumed.train(resume_from_checkpoint=str(tmp_path / "first" / name))
    assert [one.name for one in list_checkpoints(tmp_path / "second")] == ["checkpoint-4"]


def test_a_warning_names_the_checkpoint_of_another_name_to_continue_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, max_steps=3, **EVERY_STEP).train()
    (tmp_path / "checkpoint-3").rename(tmp_path / "best-model")
    stopped = DoesAt(4, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit):
        trainer(tmp_path, stopped, max_steps=6).train(str(tmp_path / "best-model"))
    assert str(tmp_path / "best-model") in warned(caplog)[-1]


def test_a_clock_that_is_set_back_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited: dict[str, Any] = {**EVERY_STEP, "save_total_limit": 2}
    with monkeypatch.context() as ahead:
        now = time.time
        ahead.setattr(time, "time", lambda: now() + 3600)
        trainer(tmp_path, max_steps=3, **limited).train()
    trainer(tmp_path, max_steps=6, **limited).train(resume_from_checkpoint=True)
    assert [one.name for one in list_checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-6"]


@pytest.mark.parametrize("damage", [flip, os.remove])
def test_a_best_checkpoint_that_was_damaged_is_not_loaded_at_the_end(
    tmp_path: Path, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    damages = DoesAt(4, lambda: damage(tmp_path / "checkpoint-1" / MODEL))
    trained = trainer(tmp_path, damages, max_steps=5, **BEST)
    assert trained.train().global_step == 5
    assert str(tmp_path / "checkpoint-1") in warned(caplog)[-1]
    last = trainer(tmp_path / "other", max_steps=5, **{**BEST, "load_best_model_at_end": False})
    last.train()
    assert all(map(torch.equal, weights(trained), weights(last)))


@pytest.mark.parametrize("has_namesake", [False, True])
def test_a_best_checkpoint_in_another_directory_stays_the_best(
    tmp_path: Path, has_namesake: bool
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    trainer(first, StopAt(3), max_steps=5, **BEST).train()
    if has_namesake:
        trainer(second, max_steps=1, seed=3, **EVERY_STEP).train()
    trainer(second, StopAt(4), max_steps=5, **BEST).train(resume_from_checkpoint=str(first))
    resumed = trainer(second, max_steps=5, **BEST)
    resumed.train(resume_from_checkpoint=str(second / "checkpoint-4"))
    assert resumed.state.best_model_checkpoint == str(first / "checkpoint-1")


def test_a_directory_that_was_moved_has_its_own_best_checkpoint(tmp_path: Path) -> None:
    trainer(tmp_path / "old", StopAt(3), max_steps=5, **BEST).train()
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    resumed = trainer(tmp_path / "new", max_steps=5, **BEST)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_model_checkpoint == str(tmp_path / "new" / "checkpoint-1")


@pytest.mark.parametrize("kind", ["file", "dangling link", "link"])
def test_what_stands_in_place_of_a_checkpoint_is_replaced(tmp_path: Path, kind: str) -> None:
    in_place = tmp_path / "checkpoint-2"
    (tmp_path / "elsewhere").mkdir()
    if kind == "file":
        in_place.write_text("")
    else:
        in_place.symlink_to("nowhere" if kind == "dangling link" else "elsewhere")
    for _ in range(2):
        trainer(tmp_path, max_steps=3, save_total_limit=2, **EVERY_STEP).train()
    found = sorted(one.name for one in tmp_path.iterdir())
    assert found == ["checkpoint-2", "checkpoint-3", "elsewhere"]
    assert find_fault(in_place) is None


def test_an_output_dir_that_becomes_a_file_costs_only_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def replace() -> None:
        shutil.rmtree(tmp_path / "out")
        (tmp_path / "out").write_text("")

    caplog.set_level(logging.WARNING)
    trained = trainer(tmp_path / "out", DoesAt(3, replace), max_steps=5, **EVERY_STEP)
    assert trained.train().global_step == 5
    assert trained.run.saved_step == 2


def test_a_checkpoint_that_this_user_may_not_read_is_skipped(tmp_path: Path) -> None:
    trainer(tmp_path, max_steps=3, **EVERY_STEP).train()
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.chmod(0)
    try:
        child = os.fork()
        if child == 0:
            _obey_permissions()
            os._exit(0 if find_fault(checkpoint) and list_checkpoints(tmp_path) else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        checkpoint.chmod(0o755)


def _obey_permissions() -> None:
    """Give up the right of root to ignore the permissions of files."""
    if os.getuid() == 0:
        import ctypes

        # The capabilities that let root ignore permissions: DAC_OVERRIDE and DAC_READ_SEARCH.
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        data = (ctypes.c_uint32 * 6)()
        libc = ctypes.CDLL(None, use_errno=True)
        libc.capget(header, data)
        data[0] &= ~0b110
        libc.capset(header, data)
