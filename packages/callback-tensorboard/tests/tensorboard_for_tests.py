"""A simulated training, and readers for what TensorBoard finds of it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from callback_contract.testing import run_python, unused_port
from callback_core import CallbackHandler, DefaultFlowCallback, TrainerControl, TrainerState
from callback_core.tracking import TrackerCallback


@dataclass
class Arguments:
    """The training arguments that the callback reads."""

    output_dir: str
    run_name: str | None = None
    others: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"output_dir": self.output_dir, "learning_rate": 0.1, **self.others}


class Run:
    """A simulated training with a callback: begin, log at steps, end."""

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


def in_a_process(code: str, *arguments: object) -> str:
    """Run `code` in a new Python process, and return its output and errors."""
    answer = run_python("-c", code, *map(str, arguments))
    assert answer.returncode == 0, answer.stderr
    return answer.stdout + answer.stderr


class Server(NamedTuple):
    """A running TensorBoard."""

    url: str

    def ask(self, path: str, data: dict[str, Any] | None = None, **query: str) -> Any:
        """Return the server's answer to a request of its web page."""
        request = urllib.request.Request(
            f"{self.url}/data/{path}?{urllib.parse.urlencode(query)}",
            None if data is None else json.dumps(data).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    def curve(self, run: str, tag: str) -> list[tuple[int, float]]:
        """Return steps and values of a curve."""
        return [(s, v) for _, s, v in self.ask("plugin/scalars/scalars", run=run, tag=tag)]


@contextmanager
def server(directory: Path, *options: str) -> Iterator[Server]:
    """Run TensorBoard over `directory`."""
    port = str(unused_port())
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(directory)]
    command += ["--host", "127.0.0.1", "--port", port, "--reload_interval", "1", *options]
    with open(directory.parent / "server.log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


def read(directory: Path) -> EventAccumulator:
    return EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def shown(directory: Path) -> list[tuple[str, int]]:
    """Return tag and step of all points that the server shows; it has its own rules for reading."""
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
    """Return the data for the HParams tab: `session_start_info` or `session_end_info`."""
    metadata = read(directory).summary_metadata[f"_hparams_/{what}"]
    return HParamsPluginData.FromString(metadata.plugin_data.content)


def runs(output_dir: Path) -> list[Path]:
    return sorted((output_dir / "runs").iterdir())


def the_run(output_dir: Path) -> Path:
    [directory] = runs(output_dir)
    return directory
