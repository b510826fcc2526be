"""transformers' callbacks in our trainer, and our callbacks in transformers' trainer."""

from __future__ import annotations

import dataclasses
import os
import pty
import termios
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import transformers
import transformers.integrations
from small_training import TRAINERS, TinyDataset, build
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import callback_core
import callback_tensorboard

CALLBACKS = {"transformers": transformers, "ours": callback_core}
TENSORBOARD = {
    "transformers": transformers.integrations.TensorBoardCallback,
    "ours": callback_tensorboard.TensorBoardCallback,
}
MODULES = {"transformers": transformers.trainer_callback, "ours": callback_core}

every_trainer = pytest.mark.parametrize("trainer", TRAINERS)
every_callback = pytest.mark.parametrize("callbacks", CALLBACKS)


@pytest.fixture(autouse=True)
def no_logging_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)


def recorder(module: Any) -> Any:
    """Return a callback that records every event with its step and the flags that are on."""

    def method(event: str) -> Any:
        def on_event(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            on = [name for name, value in control.state()["args"].items() if value]
            self.lines.append((event, state.global_step, on))

        return on_event

    names = [name for name in vars(transformers.TrainerCallback) if name.startswith("on_")]
    methods = {name: method(name) for name in names}
    return type("Recorder", (module.TrainerCallback,), {**methods, "lines": []})()


STRATEGIES = (
    {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 4},
    {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"},
    {"logging_steps": 3, "logging_first_step": True, "eval_strategy": "steps", "eval_delay": 5},
    {"max_steps": 7, "gradient_accumulation_steps": 2, "eval_strategy": "epoch", "eval_delay": 2},
)


@every_trainer
@pytest.mark.parametrize("arguments", STRATEGIES, ids=range(len(STRATEGIES)))
def test_both_default_flows_cause_the_same_events(
    trainer: str, arguments: dict[str, Any], tmp_path: Path
) -> None:
    def events(flow: str, watcher: str) -> list[Any]:
        watching = recorder(CALLBACKS[watcher])
        running = build(trainer, tmp_path / flow / watcher, **arguments)
        for module in CALLBACKS.values():
            running.remove_callback(module.DefaultFlowCallback)
        running.add_callback(CALLBACKS[flow].DefaultFlowCallback)
        running.add_callback(watching)
        running.train()
        return list(watching.lines)

    expected = events(trainer, trainer)
    assert len(expected) > 30
    assert events("transformers", "ours") == expected
    assert events("ours", "transformers") == expected


@every_trainer
@every_callback
@pytest.mark.parametrize(
    ("patience", "threshold", "stops"), [(1, 0.0, 3), (2, 0.0, 6), (3, 0.0, 7), (1, 0.5, 2)]
)
def test_early_stopping_stops_at_the_same_step(
    trainer: str, callbacks: str, patience: int, threshold: float, stops: int, tmp_path: Path
) -> None:
    stopping = CALLBACKS[callbacks].EarlyStoppingCallback(patience, threshold)
    running = build(
        trainer,
        tmp_path,
        stopping,
        scores=(1.0, 1.4, 1.3, 2.0, 1.9, 1.8, float("nan"), 1.7, 9.0, 9.0),
        eval_strategy="steps",
        eval_steps=1,
        metric_for_best_model="score",
        greater_is_better=True,
    )
    running.train()
    assert running.state.global_step == stops
    assert stopping.early_stopping_patience_counter == patience


@every_trainer
@every_callback
def test_the_printer_prints_every_log(
    trainer: str, callbacks: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = build(trainer, tmp_path, disable_tqdm=False)
    for module in CALLBACKS.values():
        running.remove_callback(module.ProgressCallback)
    running.add_callback(CALLBACKS[callbacks].PrinterCallback)
    running.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(lines) == len(running.state.log_history) == 11
    for entry, line in zip(running.state.log_history[:-1], lines, strict=False):
        assert f"{entry['loss']:.4g}" in line


@contextmanager
def terminal() -> Iterator[list[str]]:
    """Make standard output and error a terminal, and collect the output."""
    ours, others = pty.openpty()
    termios.tcsetwinsize(others, (24, 100))  # without a width, no bar is drawn
    written: list[str] = []

    def collect() -> None:
        with suppress(OSError):  # raised when the other side is closed
            while piece := os.read(ours, 65536):
                written.append(piece.decode(errors="replace"))

    collecting = Thread(target=collect)
    collecting.start()
    with open(others, "w") as stream, redirect_stderr(stream), redirect_stdout(stream):
        yield written
    collecting.join()
    os.close(ours)


@every_trainer
@every_callback
def test_the_progress_bar_reaches_the_end(trainer: str, callbacks: str, tmp_path: Path) -> None:
    progress = CALLBACKS[callbacks].ProgressCallback()

    class Watch(CALLBACKS[trainer].TrainerCallback):  # type: ignore[name-defined, misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            drawn.append((progress.training_bar.n, progress.training_bar.total))

    drawn: list[tuple[int, int]] = []
    with terminal() as written:
        running = build(trainer, tmp_path, progress, Watch, eval_strategy="steps", eval_steps=5)
        running.train()
        assert progress.training_bar is None and progress.prediction_bar is None
        running.evaluate()
        running.predict(TinyDataset(4))
        assert progress.prediction_bar is None
    assert drawn == [(step, 10) for step in range(1, 11)]
    screen = "".join(written)
    assert "10/10" in screen and "2/2" in screen and "'eval_loss'" in screen


@every_trainer
@every_callback
def test_the_curve_reads_back_as_logged(trainer: str, callbacks: str, tmp_path: Path) -> None:
    running = build(trainer, tmp_path, TENSORBOARD[callbacks], eval_strategy="epoch")
    running.train()
    [directory] = {Path(found) for found, _, files in os.walk(tmp_path / "runs") if files}
    read = EventAccumulator(str(directory)).Reload()
    for tag, name in (("train/loss", "loss"), ("eval/loss", "eval_loss")):
        expected = [
            (entry["step"], pytest.approx(entry[name]))
            for entry in running.state.log_history
            if name in entry
        ]
        assert [(event.step, event.value) for event in read.Scalars(tag)] == expected
        assert len(expected) == {"loss": 10, "eval_loss": 2}[name]
    assert "args/text_summary" in read.Tags()["tensors"]


@every_trainer
@pytest.mark.parametrize("reader", MODULES)
def test_both_read_the_state_in_a_checkpoint(trainer: str, reader: str, tmp_path: Path) -> None:
    stopping = CALLBACKS[trainer].EarlyStoppingCallback(2)
    running = build(
        trainer,
        tmp_path,
        stopping,
        scores=(3.0, 2.0, 1.0),
        eval_strategy="steps",
        eval_steps=5,
        save_strategy="steps",
        save_steps=5,
        metric_for_best_model="score",
        greater_is_better=True,
        load_best_model_at_end=True,
    )
    running.train()
    path = tmp_path / "checkpoint-5" / "trainer_state.json"
    own = MODULES[trainer].TrainerState.load_from_json(str(path))
    read = MODULES[reader].TrainerState.load_from_json(str(path))
    names = [field.name for field in dataclasses.fields(transformers.TrainerState)]
    assert [getattr(read, name) for name in names] == [getattr(own, name) for name in names]
    assert (read.global_step, read.best_metric) == (5, 3.0)
    assert read.log_history[-1]["eval_score"] == 3.0
    stored = read.stateful_callbacks["EarlyStoppingCallback"]
    assert stored["args"]["early_stopping_patience"] == 2
    assert stored["attributes"]["early_stopping_patience_counter"] == 0
