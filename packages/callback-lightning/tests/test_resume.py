"""A training that continues from a checkpoint of Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_for_tests import BATCHES, LinesCallback, Recorder, Run, Small, runs_in, trainer
from torch.utils.data import DataLoader

from callback_core import EarlyStoppingCallback, TrainerCallback
from callback_lightning import LightningCallbacks, TrackerLogger


class Die(TrainerCallback):
    """Ends the training at a step, at which the process of a user would be killed."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise RuntimeError("killed")


class Same(Small):
    """Has equal batches only, because Lightning begins the data of an epoch from its start."""

    def batches(self) -> DataLoader[Any]:
        return DataLoader(torch.ones(2 * BATCHES, 4), batch_size=2)  # type: ignore[arg-type]

    train_dataloader = val_dataloader = batches


def run(root: Path, logger: bool, die_at: int = -1, ckpt_path: Any = None, **saves: Any) -> Run:
    """Train, until `die_at`, and return what the tracker has."""
    root.mkdir(exist_ok=True)
    lines = LinesCallback(root / "runs.jsonl")
    callbacks = [LightningCallbacks([Die(die_at), *([] if logger else [lines])])]
    saving = ModelCheckpoint(root / "kept", save_top_k=-1, save_last=True, **saves)
    running = trainer(
        root,
        *([] if logger and die_at < 0 else callbacks),
        saving,
        logger=TrackerLogger(lines) if logger else False,
        enable_checkpointing=True,
        val_check_interval=4,
        max_epochs=3,
    )
    try:
        running.fit(Same(), ckpt_path=ckpt_path, weights_only=False)
    except RuntimeError as error:
        assert str(error) == "killed"
    (found,) = runs_in(root / "runs.jsonl")
    return found


SAVES = [
    pytest.param({"every_n_train_steps": 3}, id="steps"),
    pytest.param({"every_n_train_steps": 4}, id="steps with validation"),
    pytest.param({"monitor": "val_loss"}, id="validation"),
    pytest.param({"save_on_train_epoch_end": True}, id="epochs"),
]


@pytest.mark.parametrize("logger", [False, True], ids=["callbacks", "logger"])
@pytest.mark.parametrize("saves", SAVES)
@pytest.mark.parametrize("die_at", [13, 16])
def test_a_resumed_training_has_the_curves_of_an_unbroken_one(
    die_at: int, saves: dict[str, Any], logger: bool, tmp_path: Path
) -> None:
    whole = run(tmp_path / "whole", logger, **saves)
    run(tmp_path / "broken", logger, die_at, **saves)
    resumed = run(tmp_path / "broken", logger, ckpt_path="last", **saves)
    for name in ("train/loss", "eval/loss"):
        assert dict(resumed.points[name]) == pytest.approx(dict(whole.points[name]))
        assert len(resumed.points[name]) == len(whole.points[name])
    assert resumed.status == "finished"


def test_a_callbacks_state_continues(tmp_path: Path) -> None:
    def stopping() -> EarlyStoppingCallback:
        return EarlyStoppingCallback(3, early_stopping_threshold=100.0)

    def fit(callback: Any, *others: Any, **options: Any) -> int:
        callbacks = LightningCallbacks([callback, *others], {"metric_for_best_model": "loss"})
        running = trainer(tmp_path, callbacks, enable_checkpointing=True, max_epochs=9, **options)
        path = "last" if list(tmp_path.glob("checkpoints/last.ckpt")) else None
        assert isinstance(running.checkpoint_callback, ModelCheckpoint)
        running.checkpoint_callback.save_last = True
        try:
            running.fit(Small(), ckpt_path=path, weights_only=False)
        except RuntimeError as error:
            assert str(error) == "killed"
        return running.global_step

    fit(stopping(), Die(2 * BATCHES + 3))
    resumed = stopping()
    assert fit(resumed) == 4 * BATCHES
    assert resumed.early_stopping_patience_counter == 3


def test_the_state_continues(tmp_path: Path) -> None:
    def fit(recorder: Recorder, ckpt_path: Any = None) -> None:
        saving = ModelCheckpoint(tmp_path / "kept", every_n_train_steps=3, save_last=True)
        callbacks = LightningCallbacks([recorder])
        running = trainer(tmp_path, callbacks, saving, enable_checkpointing=True, max_epochs=1)
        running.fit(Small(), ckpt_path=ckpt_path, weights_only=True)

    first, second = Recorder(), Recorder()
    fit(first)
    checkpoint = tmp_path / "kept" / "last.ckpt"
    fit(second, checkpoint)
    assert second.events[1] == ("on_train_begin", 6)
    assert second.passed["on_train_begin"][0]["checkpoint_dir"] == str(checkpoint)
    assert second.passed["on_epoch_begin"][0]["epoch"] == 0.0
    assert second.passed["on_step_begin"][0]["epoch"] == 6 / BATCHES
    steps = [log["step"] for log in second.states[-1].log_history if "loss" in log]
    assert steps == [1, 2, 3, 4, 5, 7, 8]  # Lightning saves at step 6 before it logs it


def test_an_evaluation_of_a_checkpoint_is_not_its_training(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path / "kept", save_last=True)
    path = tmp_path / "runs.jsonl"
    callbacks = LightningCallbacks([LinesCallback(path)])
    trainer(tmp_path, callbacks, saving, enable_checkpointing=True, max_epochs=1).fit(Small())
    lines = LinesCallback(path)
    running = trainer(tmp_path, LightningCallbacks([lines]))
    running.test(Small(), ckpt_path=saving.last_model_path, verbose=False, weights_only=False)
    assert lines.session is not None
    lines.session.close()
    assert len(runs_in(path)) == 2


def test_a_checkpoint_of_lightning_alone_begins_a_run_and_keeps_the_step(tmp_path: Path) -> None:
    saving = ModelCheckpoint(tmp_path / "kept", every_n_train_steps=3, save_last=True)
    trainer(tmp_path, saving, enable_checkpointing=True, max_epochs=1).fit(Small())
    path = tmp_path / "runs.jsonl"
    running = trainer(tmp_path, LightningCallbacks([LinesCallback(path)]), max_epochs=1)
    running.fit(Small(), ckpt_path=saving.last_model_path, weights_only=False)
    assert runs_in(path)[0].steps("train/loss") == [7, 8]
