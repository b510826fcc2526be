"""A disk that fails ends a save, and not the training."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from resuming import EVERY_STEP
from small import arguments, compute_loss, data, net, trainer, warned
from test_save_async import Sees
from torch import nn

from callback_core import TrainerCallback
from trainer_torch import Trainer
from trainer_torch.checkpoints.selection import find_checkpoint
from trainer_torch.storage.checkpoint import find_fault, list_checkpoints
from trainer_torch.testing import At

MODES = pytest.mark.parametrize("save_async", [False, True])


class Limit:
    """A limit of the size of files, beyond which writing fails as on a disk that is full."""

    def __init__(self) -> None:
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def set(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, self.before[1]))

    def lift(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)

    def train(self, made: Trainer) -> None:
        """Train, and lift the limit before pytest writes to a log."""
        try:
            made.train()
        finally:
            self.lift()


@pytest.fixture
def limit() -> Iterator[Limit]:
    made = Limit()
    yield made
    made.lift()


class Full(TrainerCallback):
    """Lets the disk fail before some steps, and work before others."""

    def __init__(self, limit: Limit, *steps: int) -> None:
        self.limit, self.steps = limit, steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.limit.lift()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            self.limit.set()


class FullAfterASave(TrainerCallback):
    """Lets the disk fail once a checkpoint is whole."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.limit.set()


def steps(out: Path) -> list[int]:
    return [int(one.name.rpartition("-")[2]) for one in list_checkpoints(out)]


def test_training_goes_on_after_a_save_has_failed(
    tmp_path: Path, limit: Limit, caplog: pytest.LogCaptureFixture
) -> None:
    sees = Sees()
    made = trainer(tmp_path, Full(limit, 2, 3), sees, max_steps=5, **EVERY_STEP)
    limit.train(made)
    assert made.state.global_step == 5
    assert steps(tmp_path) == [1, 4, 5]
    assert [step for step, *_ in sees.saved] == [1, 4, 5]
    assert [one.step for one in made.run.saves.failed] == [2, 3]
    assert not list(tmp_path.glob(".checkpoint*"))
    assert len([one for one in warned(caplog) if str(tmp_path) in one]) == 1
    assert len([one for one in warned(caplog) if "2, 3" in one]) == 1


@MODES
def test_the_newest_whole_one_is_resumed_from(
    tmp_path: Path, limit: Limit, save_async: bool
) -> None:
    saved = {**EVERY_STEP, "save_steps": 2, "save_async": save_async}
    made = trainer(tmp_path, FullAfterASave(limit), max_steps=6, **saved)
    limit.train(made)
    assert made.run.saved_step == 2
    assert [one.step for one in made.run.saves.failed] == [4, 6]
    assert find_checkpoint(True, tmp_path) == tmp_path / "checkpoint-2"
    resumed = trainer(tmp_path, max_steps=6, **saved)
    resumed.train(resume_from_checkpoint=True)
    assert steps(tmp_path) == [2, 4, 6]
    undisturbed = trainer(tmp_path / "other", max_steps=6)
    undisturbed.train()
    ends = [
        [value.tolist() for value in one.model.state_dict().values()]
        for one in (resumed, made, undisturbed)
    ]
    assert ends[0] == ends[1] == ends[2]


@MODES
def test_nothing_saved_is_an_error_in_the_log(
    tmp_path: Path, limit: Limit, caplog: pytest.LogCaptureFixture, save_async: bool
) -> None:
    limits = At(1, limit.set)
    made = trainer(tmp_path, limits, max_steps=3, **EVERY_STEP, save_async=save_async)
    limit.train(made)
    assert made.state.global_step == 3
    assert any(one.levelname == "ERROR" for one in caplog.records)
    assert steps(tmp_path) == []


def test_the_best_that_could_not_be_saved_is_told(
    tmp_path: Path, limit: Limit, caplog: pytest.LogCaptureFixture
) -> None:
    scores = iter([0.1, 0.5, 0.9, 0.2])
    args = arguments(
        tmp_path,
        **{**EVERY_STEP, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 4},
        load_best_model_at_end=True,
        metric_for_best_model="score",
        save_total_limit=1,
    )
    made = Trainer(
        net(),
        args,
        None,
        data(),
        data(9),
        compute_loss=compute_loss,
        compute_metrics=lambda _: {"score": next(scores)},
        callbacks=[Full(limit, 3)],
    )
    limit.train(made)
    assert made.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert any("step 3" in one for one in warned(caplog))
    assert find_fault(tmp_path / "checkpoint-2") is None


def test_an_older_one_makes_room_on_a_disk_that_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "200k") as disk:
        made = trainer(
            disk,
            given={"model": Wide(), "compute_loss": compute_loss},
            max_steps=6,
            **EVERY_STEP,
            save_total_limit=3,
            optim="sgd",
        )
        made.train()
        assert made.run.saves.failed
        assert made.run.saved_step == max(steps(disk))
        assert find_fault(disk / f"checkpoint-{max(steps(disk))}") is None


@MODES
def test_three_megabytes_are_enough_to_train(tmp_path: Path, save_async: bool) -> None:
    with small_disk(tmp_path / "disk", "3m") as disk:
        made = trainer(
            disk,
            given={"model": Wide(300), "compute_loss": compute_loss},
            max_steps=5,
            **EVERY_STEP,
            save_async=save_async,
        )
        made.train()
        assert made.state.global_step == 5
        assert made.run.saves.failed
        newest = find_checkpoint(True, disk)
        assert newest.name == f"checkpoint-{made.run.saved_step}"
        resumed = trainer(
            disk,
            given={"model": Wide(300), "compute_loss": compute_loss},
            max_steps=5,
            save_strategy="no",
        )
        resumed.train(resume_from_checkpoint=True)
        assert resumed.run.resumed_from == newest
        both = (one.model.state_dict()["wide.weight"].tolist() for one in (made, resumed))
        assert next(both) == next(both)


class Wide(nn.Module):
    """A layer of `width` x `width` weights between two small ones."""

    def __init__(self, width: int = 100) -> None:
        super().__init__()
        self.first, self.wide = nn.Linear(4, width), nn.Linear(width, width)
        self.last = nn.Linear(width, 3)

    def forward(self, features: Any) -> Any:
        return self.last(self.wide(self.first(features)))


@contextmanager
def small_disk(where: Path, size: str, *options: str) -> Iterator[Path]:
    """Return a directory on a file system of its own, of this size. Only root may mount one."""
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs"]
    mounted = subprocess.run([*command, str(where)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.fail(f"This test mounts a small file system, which needs root: {mounted.stderr}")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def test_a_directory_that_is_read_only_is_refused_before_training(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m", "ro") as disk:
        with pytest.raises(ValueError, match="output_dir"):
            trainer(disk, **EVERY_STEP).train()
        trainer(disk, max_steps=1).train()


def test_a_disk_that_becomes_read_only_ends_neither_saves_nor_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:

        def close() -> None:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        made = trainer(disk, At(3, close), max_steps=5, **EVERY_STEP, save_total_limit=1)
        made.train()
        assert steps(disk) == [2]
        assert [one.step for one in made.run.saves.failed] == [3, 4, 5]


def test_damaged_checkpoints_do_not_count_as_kept(tmp_path: Path) -> None:
    def damage() -> None:
        os.truncate(tmp_path / "checkpoint-2" / "optimizer.pt", 10)
        (tmp_path / "checkpoint-3" / "manifest.json").unlink()

    made = trainer(tmp_path, At(4, damage), max_steps=4, **EVERY_STEP, save_total_limit=3)
    made.train()
    assert set(steps(tmp_path)) == {1, 2, 3, 4}
    assert find_fault(tmp_path / "checkpoint-1") is None


def test_a_checkpoint_that_cannot_be_deleted_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    busy = tmp_path / "busy"

    def occupy() -> None:
        busy.mkdir()
        subprocess.run(
            ["mount", "--bind", str(busy), str(tmp_path / "out" / "checkpoint-1")], check=True
        )

    if os.geteuid() != 0:
        pytest.fail("This test mounts a directory, which needs root.")
    out = tmp_path / "out"
    try:
        made = trainer(out, At(2, occupy), max_steps=5, **EVERY_STEP, save_total_limit=1)
        made.train()
    finally:
        subprocess.run(["umount", str(out / "checkpoint-1")], check=True)
    assert made.state.global_step == 5
    assert find_fault(out / "checkpoint-5") is None
    shutil.rmtree(out)
