"""A training by hand, and what TensorBoard's own reader finds of it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from callback_core import CallbackHandler, DefaultFlowCallback, TrainerControl, TrainerState
from callback_core.tracking import TrackerCallback


@dataclass
class Arguments:
    """The few arguments that the callback reads."""

    output_dir: str
    run_name: str | None = None
    others: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"output_dir": self.output_dir, "learning_rate": 0.1, **self.others}


class Run:
    """A training of a callback by hand: begin, log at steps, end."""

    def __init__(self, callback: TrackerCallback, output_dir: Path, **state: Any) -> None:
        self.args, self.state, self.control = (
            Arguments(str(output_dir)),
            TrainerState(**state),
            TrainerControl(),
        )
        self.handler = CallbackHandler([DefaultFlowCallback, callback], None, None, None, None)

    def begin(self, step: int = 0) -> None:
        self.state.global_step, self.state.max_steps = step, 1000
        self.handler.on_train_begin(self.args, self.state, self.control)
        self.handler.on_epoch_begin(self.args, self.state, self.control)

    def log(self, step: int, **logs: Any) -> None:
        self.state.global_step = step
        self.handler.on_log(self.args, self.state, self.control, logs=logs)

    def end(self, exception: BaseException | None = None) -> None:
        if exception is not None:
            self.handler.on_exception(self.args, self.state, self.control, exception=exception)
        self.handler.on_train_end(self.args, self.state, self.control)


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a Python of its own; what it prints, errors too, is in `stdout`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def in_a_process(code: str, *arguments: object) -> str:
    """Return what `code` prints, run by a Python of its own."""
    answer = python("-c", code, *arguments)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


def replay(output_dir: Path, *options: str) -> str:
    """Return what the replay of all runs in `output_dir` prints."""
    answer = python("-m", "callback_core.tracking.replay", output_dir, *options)
    assert answer.returncode == 0, answer.stdout
    return answer.stdout


def read(directory: Path) -> EventAccumulator:
    return EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def shown(directory: Path) -> list[tuple[str, int]]:
    """Return tag and step of all that the server shows, which reads by other rules."""
    accumulator = plugin_event_accumulator.EventAccumulator(
        str(directory), size_guidance={"tensors": 0}
    ).Reload()
    return [
        (tag, event.step)
        for tag in accumulator.Tags()["tensors"]
        for event in accumulator.Tensors(tag)
    ]


def points(directory: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(directory).Scalars(tag)]


def texts(directory: Path, tag: str) -> list[str]:
    return [
        event.tensor_proto.string_val[0].decode()
        for event in read(directory).Tensors(f"{tag}/text_summary")
    ]


def hparams(directory: Path, what: str) -> HParamsPluginData:
    """Return what the HParams tab is told: `session_start_info` or `session_end_info`."""
    metadata = read(directory).summary_metadata[f"_hparams_/{what}"]
    return HParamsPluginData.FromString(metadata.plugin_data.content)


def runs(output_dir: Path) -> list[Path]:
    return sorted((output_dir / "runs").iterdir())


def the_run(output_dir: Path) -> Path:
    [directory] = runs(output_dir)
    return directory
