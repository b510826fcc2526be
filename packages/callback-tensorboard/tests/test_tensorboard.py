"""What TensorBoard reads back from a training, through its own reader."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorboardX
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from callback_core import CallbackHandler, DefaultFlowCallback, TrainerControl, TrainerState
from callback_tensorboard import TensorBoardCallback


@dataclass
class Arguments:
    """The few arguments that the callback reads."""

    output_dir: str

    def to_json_string(self) -> str:
        return json.dumps({"output_dir": self.output_dir, "learning_rate": 0.1})


class Run:
    """A training of a callback by hand: begin, log at steps, end."""

    def __init__(self, callback: TensorBoardCallback, output_dir: Path, **state: Any) -> None:
        self.args, self.state, self.control = (
            Arguments(str(output_dir)),
            TrainerState(**state),
            TrainerControl(),
        )
        self.handler = CallbackHandler([DefaultFlowCallback, callback], None, None, None, None)

    def begin(self) -> None:
        self.state.global_step = 0
        self.handler.on_train_begin(self.args, self.state, self.control)

    def log(self, step: int, **logs: Any) -> None:
        self.state.global_step = step
        self.handler.on_log(self.args, self.state, self.control, logs=logs)

    def end(self) -> None:
        self.handler.on_train_end(self.args, self.state, self.control)


@pytest.fixture(autouse=True)
def no_logging_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)


def read(directory: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(directory))
    accumulator.Reload()
    return accumulator


def points(directory: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(directory).Scalars(tag)]


def texts(directory: Path, tag: str) -> list[str]:
    return [
        event.tensor_proto.string_val[0].decode()
        for event in read(directory).Tensors(f"{tag}/text_summary")
    ]


def runs(output_dir: Path) -> list[Path]:
    return sorted((output_dir / "runs").iterdir())


def test_logs_become_curves_grouped_by_split(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(1, loss=0.5, eval_loss=0.25, test_accuracy=1)
    run.log(2, loss=0.125)
    run.end()
    [directory] = runs(tmp_path)
    assert points(directory, "train/loss") == [(1, 0.5), (2, 0.125)]
    assert points(directory, "eval/loss") == [(1, 0.25)]
    assert points(directory, "test/accuracy") == [(1, 1.0)]


def test_numpy_and_torch_scalars_and_nan_become_points(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(1, a=np.float32(0.5), b=torch.tensor(0.25), c=math.nan)
    run.end()
    [directory] = runs(tmp_path)
    assert points(directory, "train/a") == [(1, 0.5)]
    assert points(directory, "train/b") == [(1, 0.25)]
    assert math.isnan(points(directory, "train/c")[0][1])


def test_a_string_becomes_text(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(1, note="größer")
    run.end()
    assert texts(runs(tmp_path)[0], "train/note") == ["größer"]


def test_what_is_neither_number_nor_text_is_named_once_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(1, histogram=[1, 2], loss=0.5)
    run.log(2, histogram=[1, 2], loss=0.5)
    run.end()
    assert [record.getMessage().count("'histogram'") for record in caplog.records] == [1]
    assert read(runs(tmp_path)[0]).Tags()["scalars"] == ["train/loss"]


def test_arguments_and_model_configuration_are_written_as_text(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.handler.model = SimpleNamespace(
        config=SimpleNamespace(to_json_string=lambda: '{"layers": 2}')
    )
    run.begin()
    run.end()
    [directory] = runs(tmp_path)
    assert '"learning_rate": 0.1' in texts(directory, "args")[0]
    assert texts(directory, "model_config") == ['    {"layers": 2}\n']


@pytest.mark.parametrize(
    "make_writer", [SummaryWriter, tensorboardX.SummaryWriter], ids=["torch", "tensorboardX"]
)
def test_a_given_writer_is_used_and_stays_open(tmp_path: Path, make_writer: Any) -> None:
    writer = make_writer(str(tmp_path / "mine"))
    run = Run(TensorBoardCallback(writer), tmp_path)
    run.begin()
    run.log(1, loss=0.5)
    run.end()
    writer.add_scalar("mine", 1.0, 2)
    writer.close()
    assert points(tmp_path / "mine", "train/loss") == [(1, 0.5)]
    assert points(tmp_path / "mine", "mine") == [(2, 1.0)]
    assert not (tmp_path / "runs").exists()


def test_the_environment_names_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "curves"))
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(1, loss=0.5)
    run.end()
    assert points(tmp_path / "curves", "train/loss") == [(1, 0.5)]


def test_a_second_training_gets_a_directory_of_its_own(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    for value in (0.5, 0.25):
        run.begin()
        run.log(1, loss=value)
        run.end()
    assert sorted(points(directory, "train/loss")[0][1] for directory in runs(tmp_path)) == [
        0.25,
        0.5,
    ]


def test_an_evaluation_after_training_goes_on_in_its_directory(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(3, loss=0.5)
    run.end()
    run.log(3, eval_loss=0.25)
    [directory] = runs(tmp_path)
    assert points(directory, "eval/loss") == [(3, 0.25)]


def test_an_evaluation_before_training_writes_into_the_output_directory(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path)
    run.log(0, eval_loss=0.25)
    assert points(runs(tmp_path)[0], "eval/loss") == [(0, 0.25)]


def test_a_trial_of_a_search_gets_a_directory_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "search"))
    run = Run(TensorBoardCallback(), tmp_path, is_hyper_param_search=True, trial_name="trial-7")
    run.begin()
    run.log(1, loss=0.5)
    run.end()
    assert points(tmp_path / "search" / "trial-7", "train/loss") == [(1, 0.5)]


def test_only_the_main_process_writes(tmp_path: Path) -> None:
    run = Run(TensorBoardCallback(), tmp_path, is_world_process_zero=False)
    run.begin()
    run.log(1, loss=0.5)
    run.end()
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_imports_no_writer() -> None:
    writers = {"torch", "tensorboard", "tensorboardX"}
    code = f"import sys, callback_tensorboard; print({writers} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"


def test_a_directory_that_cannot_be_written_costs_the_training_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "taken"))
    run = Run(TensorBoardCallback(), tmp_path)
    run.begin()
    run.log(1, loss=0.5)
    run.end()
    assert "TensorBoardCallback failed in on_train_begin" in caplog.text
    assert "Training was not affected, but TensorBoardCallback failed" in caplog.text
