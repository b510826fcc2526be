"""Reads what a training has left in each tracker's own store: curves by name, and single values."""

from __future__ import annotations

import csv
import json
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

Curves = dict[str, dict[int, float]]
"""The value at each step, by the curve's name."""


def tensorboard(folder: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves: Curves = defaultdict(dict)
    for directory in {file.parent for file in folder.rglob("events.out.tfevents*")}:
        read = EventAccumulator(str(directory)).Reload()
        for tag in read.Tags()["scalars"]:
            curves[tag] |= {event.step: event.value for event in read.Scalars(tag)}
    return curves


def mlflow(folder: Path) -> Curves:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    histories = {n: client.get_metric_history(run.info.run_id, n) for n in run.data.metrics}
    return {name: {point.step: point.value for point in h} for name, h in histories.items()}


def wandb(folder: Path) -> Curves:
    from wandb.proto import wandb_internal_pb2

    curves: Curves = defaultdict(dict)
    [file] = folder.rglob("run-*.wandb")
    for content in _wandb_records(file.read_bytes()):
        record: Any = vars(wandb_internal_pb2)["Record"].FromString(content)
        items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
        row = {name: json.loads(value) for name, value in items.items()}
        for name in row.keys() - {"train/global_step"}:
            if not name.startswith("_"):
                curves[name][row["train/global_step"]] = row[name]
    return curves


def _wandb_records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log in the framing of LevelDB, with blocks of 32 KiB."""
    at, record = 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole record, or the last part of it
            yield record
            record = b""


def comet(folder: Path) -> Curves:
    curves: Curves = defaultdict(dict)
    for path in folder.rglob("*.zip"):
        with ZipFile(path) as archive:
            lines = archive.read("messages.json").decode().splitlines()
        for message in map(json.loads, lines):
            if message["type"] == "metric_msg":
                metric = message["payload"]["metric"]
                curves[metric["metricName"]][metric["step"]] = float(metric["metricValue"])
    return curves


def clearml(folder: Path) -> Curves:
    curves: Curves = defaultdict(dict)
    for path in folder.rglob("*.zip"):
        with ZipFile(path) as archive:
            lines = archive.read("metrics.jsonl").decode().splitlines()
        for event in (event for line in lines for event in json.loads(line)):
            if event.get("type") == "training_stats_scalar":
                name = f"{event['metric']}/{event['variant']}"
                curves[name][event["iter"]] = event["value"]
    return curves


def codecarbon(folder: Path) -> Curves:
    """Return the last line of CodeCarbon's file as curves of one point: it has no steps."""
    [file] = folder.rglob("emissions.csv")
    with file.open() as lines:
        last = list(csv.DictReader(lines))[-1]
    return {
        "emissions": {0: float(last["emissions"])},
        "energy": {0: float(last["energy_consumed"])},
    }


READERS: Final[dict[str, Callable[[Path], Curves]]] = {
    "TensorBoard": tensorboard,
    "MLflow": mlflow,
    "Weights & Biases": wandb,
    "Comet": comet,
    "ClearML": clearml,
    "CodeCarbon": codecarbon,
}
