"""`TensorBoardCallback` keeps the callback contract. TensorBoard's own reader reads the runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from callback_contract import Deviation, RecordedRun, Setting, TrackerContract
from callback_tensorboard import TensorBoardCallback

STATUS = {1: "finished", 2: "failed", 3: "running"}


class TestTensorBoard(TrackerContract):
    contract = (2, 0)
    precision = "single"
    capabilities = frozenset(
        {"state", "resume", "rewinds", "status", "parameters", "non_finite", "text"}
        | {"unreachable", "sdk", "settings", "redacts", "scalars"}
    )
    settings = (
        Setting(  # the callback has no such argument
            "logging_dir",
            "TENSORBOARD_LOGGING_DIR",
            None,
            examples=[("/a/b", Path("/a/b")), ("~/c", Path.home() / "c")],
            wrong=["s3://bucket/runs"],
        ),
    )
    deviations = {"STS-001": Deviation("the HParams tab knows success and failure only")}  # noqa: RUF012
    sdk = "tensorboard"
    flush_limit = 0.2

    def make(self, output_dir: Path) -> TensorBoardCallback:
        return TensorBoardCallback()

    def make_with(self, output_dir: Path, **arguments: Any) -> TensorBoardCallback:
        return TensorBoardCallback(**arguments)

    def make_unreachable(self, output_dir: Path) -> TensorBoardCallback:
        (output_dir / "runs").touch()  # a file in place of the directory
        return TensorBoardCallback(flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        (output_dir / "runs").unlink()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        runs = {file.parent for file in output_dir.glob("runs/**/events.out.tfevents.*")}
        return [recorded(run) for run in sorted(runs, key=lambda run: run.stat().st_ctime_ns)]


def recorded(directory: Path) -> RecordedRun:
    found = EventAccumulator(str(directory), {"scalars": 0, "tensors": 0}).Reload()
    text: dict[str, list[tuple[int, str]]] = {}
    for tag in (tag for tag in found.Tags()["tensors"] if tag.endswith("/text_summary")):
        values = [(e.step, e.tensor_proto.string_val[0].decode()) for e in found.Tensors(tag)]
        text[tag.removesuffix("/text_summary")] = values
    declared = text.pop("model_config", []) + text.pop("args", [])  # each holds JSON, indented
    parameters: dict[str, Any] = {}
    for _, values in declared:
        parameters |= json.loads(values)
    status = "running"
    if (end := found.summary_metadata.get("_hparams_/session_end_info")) is not None:
        data = HParamsPluginData.FromString(end.plugin_data.content)
        status = STATUS[data.session_end_info.status]
    points = {t: [(e.step, e.value) for e in found.Scalars(t)] for t in found.Tags()["scalars"]}
    return RecordedRun(directory.name, parameters, points, text, status=status)
