"""`TrackerLogger`, in what Lightning's tests of its own loggers ask of each of them."""

from __future__ import annotations

import pickle
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from lightning.pytorch import LightningDataModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner.tuning import Tuner
from lightning_for_tests import (
    BATCHES,
    LinesCallback,
    LinesTracker,
    Recorder,
    Small,
    runs_in,
    trainer,
)

from callback_core import EarlyStoppingCallback
from callback_core.tracking import TrackerCallback
from callback_lightning import LightningCallbacks, TrackerLogger
from callback_mlflow import MLflowCallback
from callback_tensorboard import TensorBoardCallback

ONE = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}


class Noting(TrackerLogger):
    """Notes what Lightning tells it."""

    def __init__(self, *callbacks: Any, **options: Any) -> None:
        super().__init__(*callbacks, **options)
        self.history: list[tuple[int | None, list[str]]] = []
        self.parameters: dict[str, Any] | None = None
        self.statuses: list[str] = []
        self.saves = 0

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        super().log_metrics(metrics, step)
        self.history.append((step, sorted(metrics)))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        super().log_hyperparams(params, *args, **kwargs)
        self.parameters = params

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        super().after_save_checkpoint(checkpoint_callback)
        self.saves += 1

    def finalize(self, status: str) -> None:
        super().finalize(status)
        self.statuses.append(status)


def lines(root: Path, **options: Any) -> LinesCallback:
    return LinesCallback(root / "runs.jsonl", **options)


def closed(*loggers: TrackerLogger) -> None:
    """Close what stays open for further logs, as the interpreter's exit does."""
    for logger in loggers:
        for callback in logger.callbacks:
            if callback.session is not None:
                callback.session.close()


@pytest.fixture
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: Any) -> TrackerCallback:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    made: dict[str, Any] = {"lines": lambda: lines(tmp_path), "tensorboard": TensorBoardCallback}
    return made.get(request.param, MLflowCallback)()


every_tracker = pytest.mark.parametrize(
    "tracker",
    ["lines", "tensorboard", pytest.param("mlflow", marks=pytest.mark.slow)],
    indirect=True,
)


@every_tracker
def test_lightning_logs_to_it_in_fit_and_test(tracker: TrackerCallback, tmp_path: Path) -> None:
    class Module(Small):
        def on_validation_epoch_end(self) -> None:
            self.log_dict({"early_stop_on": torch.tensor(1), "val_loss": torch.tensor(0.5)})

        def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            self.loss(batch)

    logger = Noting(tracker)
    running = trainer(tmp_path, logger=logger, **ONE)
    running.fit(Module())
    running.test(Module(), verbose=False)
    assert logger.history == [
        (0, ["epoch", "train_loss"]),
        (0, ["early_stop_on", "epoch", "val_loss"]),
        (1, ["epoch", "test_loss"]),
    ]
    closed(logger)


@every_tracker
def test_it_can_be_pickled_while_it_logs(tracker: TrackerCallback, tmp_path: Path) -> None:
    logger = TrackerLogger(tracker)
    _ = logger.experiment
    logger.log_metrics({"a": 1})
    logger.save()
    pickle.dumps(logger)
    copy = pickle.loads(pickle.dumps(trainer(tmp_path, logger=logger)))
    copy.logger.log_metrics({"acc": 1.0})
    assert (copy.logger.name, copy.logger.save_dir) == (logger.name, logger.save_dir)
    closed(logger, copy.logger)


@pytest.mark.parametrize("method", ["lr_find", "scale_batch_size"])
def test_the_tuner_keeps_it(method: str, tmp_path: Path) -> None:
    class Tuned(Small):
        def __init__(self, lr: float = 0.1, batch_size: int = 1) -> None:
            super().__init__()
            self.lr, self.batch_size = lr, batch_size

    model = Tuned()
    running = trainer(tmp_path, logger=TrackerLogger(lines(tmp_path)), enable_checkpointing=True)
    logger = running.logger
    options = {"num_training": 5} if method == "lr_find" else {"max_trials": 2}
    getattr(Tuner(running), method)(model, **options)
    assert running.logger is logger
    assert model.logger is logger
    assert runs_in(tmp_path / "runs.jsonl") == []


def test_it_is_told_of_metrics_checkpoints_and_the_end(tmp_path: Path) -> None:
    logger = Noting(lines(tmp_path))
    running = trainer(tmp_path, logger=logger, max_steps=2, enable_checkpointing=True)
    running.fit(Small())
    assert running.state.finished
    assert logger.history
    assert logger.saves
    assert logger.statuses == ["success"]


def test_several_log_to_a_tracker_each(tmp_path: Path) -> None:
    paths = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    loggers = [Noting(LinesCallback(path)) for path in paths]
    trainer(tmp_path, logger=[*loggers, CSVLogger(tmp_path)], max_steps=2).fit(Small())
    for logger, path in zip(loggers, paths, strict=True):
        assert logger.statuses == ["success"]
        (run,) = runs_in(path)
        assert (run.steps("train/loss"), run.status) == ([1, 2], "finished")
    assert len(list(tmp_path.glob("tracking/*/journal.jsonl"))) == 1


def test_several_can_be_pickled(tmp_path: Path) -> None:
    running = trainer(tmp_path, logger=[Noting(lines(tmp_path)), Noting(lines(tmp_path))])
    copy = pickle.loads(pickle.dumps(running))
    for logger in copy.loggers:
        logger.log_metrics({"acc": 1.0}, 0)
        assert logger.history == [(0, ["acc"])]
        closed(logger)


def test_a_step_that_is_logged_is_the_step(tmp_path: Path) -> None:
    class Stepped(Small):
        def on_validation_epoch_end(self) -> None:
            self.log_dict({"step": 7.0 + self.current_epoch, "val_acc": 0.5})

    logger = Noting(lines(tmp_path))
    trainer(tmp_path, logger=logger, num_sanity_val_steps=0).fit(Stepped())
    assert [step for step, names in logger.history if "val_acc" in names] == [7, 8]
    assert runs_in(tmp_path / "runs.jsonl")[0].steps("eval/acc") == [7, 8]


def test_hyperparameters_of_numpy_are_plain(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "bool": np.bool_(1),
        "byte": np.byte(2),
        "int": np.int_(4),
        "single": np.single(6.0),
        "double": np.double(8.9),
        "nested": {"list": [np.int_(1), torch.tensor(2.5)], "text": "a"},
        "callable": len,
    }
    logger = TrackerLogger(lines(tmp_path))
    logger.log_hyperparams(Namespace(**given))
    logger.log_metrics({"a": 1}, 0)
    logger.finalize("success")
    closed(logger)
    found = runs_in(tmp_path / "runs.jsonl")[0].parameters
    assert {name: found[name] for name in ("bool", "byte", "int", "single", "double")} == {
        "bool": True,
        "byte": 2,
        "int": 4,
        "single": 6.0,
        "double": 8.9,
    }


@pytest.mark.parametrize("logs", [True, False])
def test_hyperparameters_are_logged_if_the_module_says_so(logs: bool, tmp_path: Path) -> None:
    class Module(Small):
        def __init__(self, one: str, two: str) -> None:
            super().__init__()
            self._set_hparams({})
            self.save_hyperparameters(logger=logs)

    logger = Noting(lines(tmp_path))
    trainer(tmp_path, logger=logger, **ONE).fit(Module("pytorch", "lightning"))
    found = runs_in(tmp_path / "runs.jsonl")[0].parameters
    assert (logger.parameters is not None) == logs
    assert (found.get("one") == "pytorch") == logs


def test_hyperparameters_of_module_and_data_may_not_differ(tmp_path: Path) -> None:
    class Module(Small):
        def __init__(self, hparams: dict[str, Any]) -> None:
            super().__init__()
            self.save_hyperparameters(hparams)

    class Data(LightningDataModule):
        def __init__(self, hparams: dict[str, Any]) -> None:
            super().__init__()
            self.save_hyperparameters(hparams)
            self.train_dataloader = Small().batches  # type: ignore[method-assign]

    same = {"1": 1, "three": 3.0}
    logger = Noting(lines(tmp_path))
    trainer(tmp_path, logger=logger, **ONE).fit(Module(same), datamodule=Data(same))
    assert logger.parameters is not None
    with pytest.raises(RuntimeError, match="hparams"):
        other = Data({**same, "1": 0})
        trainer(tmp_path, logger=logger, **ONE).fit(Module(same), datamodule=other)
    assert [run.status for run in runs_in(tmp_path / "runs.jsonl")] == ["finished"]


@pytest.mark.parametrize("save_top_k", [0, 1, 2, -1])
def test_it_uploads_each_checkpoint_once(save_top_k: int, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "kept", monitor="val_loss", save_top_k=save_top_k)
    logger = TrackerLogger(lines(tmp_path, checkpoints=True))
    trainer(tmp_path, keep, logger=logger, enable_checkpointing=True, max_epochs=3).fit(Small())
    (run,) = runs_in(tmp_path / "runs.jsonl")
    steps = [BATCHES, 2 * BATCHES, 3 * BATCHES]
    names = [f"epoch={epoch}-step={step}" for epoch, step in enumerate(steps)]
    uploads = [(name, step, [f"{name}.ckpt"]) for name, step in zip(names, steps, strict=True)]
    assert run.uploads == ([] if save_top_k == 0 else uploads)
    assert not list((tmp_path / "kept").glob(".*"))


def test_the_last_checkpoint_is_uploaded_too(tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path / "kept", save_last=True, every_n_train_steps=4)
    logger = TrackerLogger(lines(tmp_path, checkpoints=True))
    trainer(tmp_path, keep, logger=logger, enable_checkpointing=True, max_epochs=1).fit(Small())
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert [(name, step) for name, step, _ in run.uploads] == [
        ("epoch=0-step=4", 4),
        ("last", 4),
        ("epoch=0-step=8", 8),
        ("last", 8),
    ]


@pytest.mark.parametrize("step", [10, None])
def test_it_logs_without_a_trainer(step: int | None, tmp_path: Path) -> None:
    logger = TrackerLogger(lines(tmp_path), args={"run_name": "mine"})
    metrics = {"float": 0.3, "int": 1, "tensor": torch.tensor(0.5), "integer": torch.tensor(1)}
    logger.log_hyperparams({"a": 1, "3.5": 4}, {"score": 0.25})
    logger.log_metrics(metrics, step)
    logger.save()
    logger.finalize("success")
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert {name: run.points[f"train/{name}"] for name in metrics} == {
        "float": [(step or 0, 0.3)],
        "int": [(step or 0, 1)],
        "tensor": [(step or 0, 0.5)],
        "integer": [(step or 0, 1)],
    }
    assert (run.parameters["a"], run.parameters["3.5"], run.status) == (1, 4, "finished")


@pytest.mark.parametrize(
    ("status", "expected"), [("success", "finished"), ("failed", "failed"), ("aborted", "failed")]
)
def test_the_status_of_lightning_ends_the_run(status: str, expected: str, tmp_path: Path) -> None:
    logger = TrackerLogger(lines(tmp_path))
    logger.finalize(status)  # of nothing
    logger.log_metrics({"a": 1}, 0)
    logger.finalize(status)
    assert [run.status for run in runs_in(tmp_path / "runs.jsonl")] == [expected]


def test_an_error_in_a_fit_ends_the_run_as_failed(tmp_path: Path) -> None:
    logger = Noting(lines(tmp_path))
    with pytest.raises(RuntimeError, match="lost"):
        trainer(tmp_path, logger=logger).fit(Small(fails_at=2))
    assert logger.statuses == ["failed"]
    assert [run.status for run in runs_in(tmp_path / "runs.jsonl")] == ["failed"]


def test_checkpoints_are_where_they_are_without_a_logger(tmp_path: Path) -> None:
    logger = TrackerLogger(lines(tmp_path))
    running = trainer(tmp_path, logger=logger, enable_checkpointing=True, max_epochs=1)
    running.fit(Small())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch=0-step=8.ckpt"]
    assert running.log_dir == str(tmp_path)


def test_accumulated_batches_are_one_point(tmp_path: Path) -> None:
    logger = Noting(lines(tmp_path))
    trainer(tmp_path, logger=logger, accumulate_grad_batches=2, max_epochs=1).fit(Small())
    assert runs_in(tmp_path / "runs.jsonl")[0].steps("train/loss") == [1, 2, 3, 4]


def test_no_graph_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = TrackerLogger(lines(tmp_path))
    for _ in range(2):
        logger.log_graph(Small(), torch.rand(1, 4))
    assert len(caplog.records) == 1


def test_its_experiment_knows_the_run(tmp_path: Path) -> None:
    callback = lines(tmp_path)
    logger = TrackerLogger(callback)
    trainer(tmp_path, logger=logger, **ONE).fit(Small())
    assert logger.experiment is callback
    assert callback.run_id is not None


# What our loggers do besides


def test_it_takes_a_tracker(tmp_path: Path) -> None:
    logger = TrackerLogger(LinesTracker(str(tmp_path / "runs.jsonl")))
    trainer(tmp_path, logger=logger, **ONE).fit(Small())
    assert len(runs_in(tmp_path / "runs.jsonl")) == 1


@pytest.mark.parametrize("wrong", [EarlyStoppingCallback(), MLflowCallback, "mlflow"])
def test_what_is_no_tracker_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError):
        TrackerLogger(wrong)
    with pytest.raises(ValueError):
        TrackerLogger()


def test_one_tracker_in_both_gets_each_point_once(tmp_path: Path) -> None:
    callback, recorder = lines(tmp_path), Recorder()
    callbacks = LightningCallbacks([callback, recorder])
    trainer(tmp_path, callbacks, logger=TrackerLogger(callback), max_epochs=1).fit(Small())
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert run.steps("train/loss") == [*range(1, BATCHES + 1)]
    assert recorder.names.count("on_log") == BATCHES + 1


def test_equal_trackers_in_both_are_one_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callbacks = LightningCallbacks([lines(tmp_path)])
    trainer(tmp_path, callbacks, logger=TrackerLogger(lines(tmp_path)), max_epochs=1).fit(Small())
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert run.steps("train/loss") == [*range(1, BATCHES + 1)]
    assert "LinesCallback" in caplog.text


def test_what_a_user_logs_to_one_of_several_reaches_the_run_once(tmp_path: Path) -> None:
    class Direct(Small):
        def on_train_epoch_end(self) -> None:
            for logger in self.trainer.loggers:
                logger.log_metrics({"all": 1.0}, step=self.global_step)
            self.trainer.loggers[1].log_metrics({"one": 2.0}, step=self.global_step)

    paths = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    loggers = [TrackerLogger(LinesCallback(path)) for path in paths]
    trainer(tmp_path, logger=loggers, max_epochs=1).fit(Direct())
    for path in paths:
        (run,) = runs_in(path)
        assert run.points["train/all"] == [(BATCHES, 1.0)]
        assert run.points["train/one"] == [(BATCHES, 2.0)]
        assert run.steps("train/loss") == [*range(1, BATCHES + 1)]


def test_what_was_logged_before_fit_is_a_run_of_its_own(tmp_path: Path) -> None:
    logger = TrackerLogger(lines(tmp_path))
    logger.log_hyperparams({"seed": 3})
    logger.log_metrics({"size": 10.0}, 0)
    trainer(tmp_path, logger=logger, max_epochs=1).fit(Small())
    before, fitted = runs_in(tmp_path / "runs.jsonl")
    assert before.points["train/size"] == [(0, 10.0)]
    assert (fitted.parameters["seed"], fitted.steps("train/loss")[-1]) == (3, BATCHES)


def test_a_second_fit_is_a_second_run(tmp_path: Path) -> None:
    logger = TrackerLogger(lines(tmp_path))
    for _ in range(2):
        trainer(tmp_path, logger=logger, max_epochs=1).fit(Small())
    first, second = runs_in(tmp_path / "runs.jsonl")
    assert first.points == second.points


@pytest.mark.parametrize("has_callbacks", [False, True])
def test_a_trainer_that_it_cannot_know_is_told(
    has_callbacks: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = TrackerLogger(lines(tmp_path))
    callbacks = [LightningCallbacks()] if has_callbacks else []
    options = {"max_epochs": 1, "enable_autolog_hparams": False}
    trainer(tmp_path, *callbacks, logger=logger, **options).fit(Small())
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert (len(run.points["train/loss"]), run.status) == (BATCHES, "finished")
    assert caplog.text.count("enable_autolog_hparams") == (not has_callbacks)


def test_hyperparameters_that_come_late_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = TrackerLogger(lines(tmp_path))
    logger.log_metrics({"a": 1}, 0)
    logger.log_hyperparams({"temperature": 1})
    logger.finalize("success")
    assert "temperature" in caplog.text


def test_fabric_logs_to_it(tmp_path: Path) -> None:
    logger = TrackerLogger(lines(tmp_path))
    fabric = Fabric(accelerator="cpu", devices=1, loggers=cast(Any, logger))
    for step in range(3):
        fabric.log("train_loss", 0.5 - 0.1 * step, step)
    logger.finalize("success")
    (run,) = runs_in(tmp_path / "runs.jsonl")
    assert (run.steps("train/loss"), run.status) == ([0, 1, 2], "finished")
