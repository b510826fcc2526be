"""What Lightning does if callbacks ask for it by the control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning_for_tests import BATCHES, LinesCallback, Recorder, Small, runs_in, trainer

from callback_core import EarlyStoppingCallback, request_stop
from callback_lightning import LightningCallbacks


class Asking(Recorder):
    """Asks for something at one event of one step."""

    def __init__(self, flag: str, event: str = "on_step_end", step: int = 3) -> None:
        super().__init__()
        self.flag, self.event, self.step = flag, event, step
        ask = getattr(self, event)

        def method(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            ask(args, state, control, **kwargs)
            if state.global_step == step:
                setattr(control, flag, True)

        setattr(self, event, method)


def test_a_callback_stops_the_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Stop(Recorder):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 3:
                request_stop(control, "enough")

    recorder = Stop()
    running = trainer(tmp_path, LightningCallbacks([recorder]))
    running.fit(Small())
    assert running.global_step == 3
    assert recorder.names[-2:] == ["on_epoch_end", "on_train_end"]
    assert "enough" in caplog.text


def test_early_stopping_stops_by_the_metric_of_validation(tmp_path: Path) -> None:
    args = {"metric_for_best_model": "loss"}
    stopping = EarlyStoppingCallback(1, early_stopping_threshold=100.0)
    running = trainer(tmp_path, LightningCallbacks([stopping], args), max_epochs=9)
    running.fit(Small())
    assert running.current_epoch == 2


def test_a_callback_leaves_the_epoch(tmp_path: Path) -> None:
    recorder = Asking("should_epoch_stop")
    running = trainer(tmp_path, LightningCallbacks([recorder]))
    running.fit(Small())
    assert running.global_step == 3 + BATCHES
    assert recorder.names.count("on_epoch_begin") == recorder.names.count("on_epoch_end") == 2


def test_a_callback_asks_for_a_log(tmp_path: Path) -> None:
    recorder = Asking("should_log")
    running: Any = trainer(tmp_path, LightningCallbacks([recorder]), log_every_n_steps=BATCHES)
    running.fit(Small())
    assert [step for step, logs in recorder.logs if "loss" in logs] == [3, BATCHES, 2 * BATCHES]
    assert running.log_every_n_steps == BATCHES


def test_a_callback_asks_for_an_evaluation(tmp_path: Path) -> None:
    recorder = Asking("should_evaluate")
    running = trainer(tmp_path, LightningCallbacks([recorder]), check_val_every_n_epoch=2)
    running.fit(Small())
    steps = [step for name, step in recorder.events if name == "on_evaluate"]
    assert steps == [3, 2 * BATCHES]
    assert running.check_val_every_n_epoch == 2


@pytest.mark.parametrize(
    ("event", "step", "options"),
    [
        ("on_epoch_end", BATCHES, {}),
        ("on_step_end", 3, {"limit_val_batches": 0}),
        ("on_step_end", 3, {"val_check_interval": "01:00:00:00", "check_val_every_n_epoch": None}),
    ],
)
def test_an_evaluation_that_lightning_cannot_make_is_told_once(
    event: str, step: int, options: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Asking("should_evaluate", event, step)
    trainer(tmp_path, LightningCallbacks([recorder]), **options).fit(Small())
    told = [one for one in caplog.records if one.name.startswith("callback_lightning")]
    assert len(told) == 1
    assert step not in [at for name, at in recorder.events[:-1] if name == "on_evaluate"][1:]


@pytest.mark.parametrize(
    ("event", "step"), [("on_step_end", 3), ("on_log", 3), ("on_epoch_end", 8)]
)
def test_a_callback_asks_for_a_checkpoint_and_training_resumes_from_it(
    event: str, step: int, tmp_path: Path
) -> None:
    path = tmp_path / "runs.jsonl"
    recorder = Asking("should_save", event, step)
    callbacks = LightningCallbacks([recorder, LinesCallback(path, checkpoints=True)])
    trainer(tmp_path, callbacks, limit_val_batches=0).fit(Small())
    assert [at for name, at in recorder.events if name == "on_save"] == [step]
    name = f"checkpoint-{step}"
    assert runs_in(path)[0].uploads == [(name, step, ["lightning.ckpt"])]

    resumed = Recorder()
    running = trainer(tmp_path, LightningCallbacks([resumed]), limit_val_batches=0)
    running.fit(Small(), ckpt_path=tmp_path / name / "lightning.ckpt", weights_only=False)
    steps = [at for name, at in resumed.events if name == "on_step_end"]
    assert steps == [*range(step + 1, 2 * BATCHES + 1)]
