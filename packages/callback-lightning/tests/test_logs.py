"""What `self.log` and callbacks log, under which names and at which steps."""

from __future__ import annotations

from csv import DictReader
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger
from lightning_for_tests import BATCHES, LinesCallback, Recorder, Small, runs_in, trainer

from callback_core import TrainerCallback
from callback_lightning import LightningCallbacks
from callback_lightning.names import Names


@pytest.mark.parametrize(
    ("name", "stage", "mapped"),
    [
        ("train_loss", "train", "loss"),
        ("train/loss", "train", "loss"),
        ("loss", "train", "loss"),
        ("lr-SGD", "train", "lr-SGD"),
        ("train_loss_step", "train", "loss_step"),
        ("val_loss", "eval", "eval_loss"),
        ("val/acc/dataloader_idx_0", "eval", "eval_acc/dataloader_idx_0"),
        ("valid_loss", "eval", "eval_loss"),
        ("validation/loss", "eval", "eval_loss"),
        ("eval_loss", "eval", "eval_loss"),
        ("accuracy", "eval", "eval_accuracy"),
        ("val_loss", "train", "eval_loss"),
        ("test_acc", "test", "test_acc"),
        ("acc", "test", "test_acc"),
        ("value", "train", "value"),
    ],
)
def test_names_become_those_of_other_loops(name: str, stage: Any, mapped: str) -> None:
    assert Names().of(name, stage) == mapped


def test_two_names_never_become_one(caplog: pytest.LogCaptureFixture) -> None:
    names = Names()
    found = [names.of(name, "train") for name in ("train_loss", "loss", "train_loss", "loss")]
    assert found == ["loss", "loss_2"] * 2
    assert len(caplog.records) == 1
    restored = Names()
    restored.load_state_dict(names.state_dict())
    assert restored.of("loss", "train") == "loss_2"


def test_logs_come_when_lightning_logs_them(tmp_path: Path) -> None:
    recorder = Recorder()
    callbacks = LightningCallbacks([recorder])
    trainer(tmp_path, callbacks, log_every_n_steps=4, limit_val_batches=0).fit(Small())
    assert [step for step, _ in recorder.logs] == [4, 8, 12, 16]
    assert recorder.passed["on_log"][0]["logs"]["epoch"] == 0.5


def test_the_values_are_those_that_lightning_writes(tmp_path: Path) -> None:
    recorder = Recorder()
    csv = CSVLogger(tmp_path)
    trainer(tmp_path, LightningCallbacks([recorder]), logger=csv).fit(Small())
    with open(Path(csv.log_dir, "metrics.csv"), newline="") as file:
        rows = list(DictReader(file))
    for ours, theirs in (("loss", "train_loss"), ("eval_loss", "val_loss")):
        expected = [(int(row["step"]) + 1, float(row[theirs])) for row in rows if row[theirs]]
        assert [(step, logs[ours]) for step, logs in recorder.logs if ours in logs] == expected


def test_a_value_of_an_epoch_is_logged_at_its_last_step(tmp_path: Path) -> None:
    class Both(Small):
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            loss = self.loss(batch)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

    recorder = Recorder()
    trainer(tmp_path, LightningCallbacks([recorder])).fit(Both())
    assert [step for step, logs in recorder.logs if "loss_epoch" in logs] == [BATCHES, 2 * BATCHES]
    assert sum("loss_step" in logs for _, logs in recorder.logs) == 2 * BATCHES


def test_a_step_of_the_users_own_is_kept(tmp_path: Path) -> None:
    class Own(Small):
        def on_train_epoch_end(self) -> None:
            self.log_dict({"train_accuracy": 0.5, "step": float(100 + self.current_epoch)})

    recorder = Recorder()
    trainer(tmp_path, LightningCallbacks([recorder])).fit(Own())
    assert [step for step, logs in recorder.logs if "accuracy" in logs] == [100, 101]
    assert recorder.events[-1] == ("on_train_end", 2 * BATCHES)


def test_the_rate_of_learning_is_monitored(tmp_path: Path) -> None:
    recorder = Recorder()
    monitor = LearningRateMonitor("step")
    trainer(tmp_path, monitor, LightningCallbacks([recorder]), max_epochs=1).fit(Small())
    assert [step for step, logs in recorder.logs if "lr-SGD" in logs] == [*range(BATCHES)]


def test_a_callback_logs(tmp_path: Path) -> None:
    class Norm(TrainerCallback):
        def on_pre_optimizer_step(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            control.log({"norm": model.layer.weight.grad.norm()})

    path = tmp_path / "runs.jsonl"
    callbacks = LightningCallbacks([LinesCallback(path), Norm()])
    trainer(tmp_path, callbacks, max_epochs=1).fit(Small())
    assert runs_in(path)[0].steps("train/norm") == [*range(BATCHES)]


def test_metrics_that_no_logger_gets_are_evaluated_too(tmp_path: Path) -> None:
    class Silent(Small):
        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.log("val_loss", self.loss(batch), logger=False)

    recorder = Recorder()
    trainer(tmp_path, LightningCallbacks([recorder]), max_epochs=1).fit(Silent())
    assert recorder.passed["on_evaluate"][0]["metrics"].keys() == {"eval_loss", "epoch"}


def test_parameters_are_those_of_the_user_and_the_module(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    args = {"run_name": "mine", "seed": 3}
    callbacks = LightningCallbacks([LinesCallback(path)], args)
    trainer(tmp_path, callbacks, max_epochs=1).fit(Small(width=4))
    assert runs_in(path)[0].parameters == {
        "run_name": "mine",
        "seed": 3,
        "width": 4,
        "fails_at": -1,
    }


def test_hyperparameters_that_come_late_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Late(Small):
        def on_train_epoch_start(self) -> None:
            self.logger.log_hyperparams({"temperature": 1})  # type: ignore[union-attr]

    trainer(tmp_path, LightningCallbacks([Recorder()])).fit(Late())
    assert caplog.text.count("temperature") == 1


def test_the_trainer_keeps_its_loggers(tmp_path: Path) -> None:
    csv = CSVLogger(tmp_path)
    for logger, kept in ((False, []), (csv, [csv])):
        running = trainer(tmp_path, LightningCallbacks(), logger=logger, max_epochs=1)
        running.fit(Small())
        assert running.loggers == kept
