"""Reads the SDK's offline files: logs of records in LevelDB's framing."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_RECORD: Any = vars(wandb_internal_pb2)["Record"]
_BLOCK = 32768
_HEADER = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class Artifact:
    name: str
    aliases: list[str]
    metadata: dict[str, Any]
    files: dict[str, Path]


@dataclass
class Run:
    """The content of a run, from all of its files in order."""

    id: str
    project: str = ""
    name: str = ""
    group: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    metrics: dict[str, str] = field(default_factory=dict)
    ended: bool = False

    @property
    def exit_code(self) -> int | None:
        """The last exit code; `None` while the run is open."""
        return self.exit_codes[-1] if self.ended else None

    def points(self, name: str) -> list[tuple[int, Any]]:
        return [(row["train/global_step"], row[name]) for row in self.rows if name in row]


def curves(rows: list[dict[str, Any]]) -> dict[tuple[str, int], Any]:
    """Return the values by name and step, and check that there are no duplicates."""
    found: dict[tuple[str, int], Any] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("_") or name == "train/global_step":
                continue
            key = (name, row["train/global_step"])
            assert key not in found, key
            found[key] = value
    return found


def runs(folder: Path) -> list[Run]:
    """Return the runs in the SDK's directory, oldest first."""
    found: dict[str, Run] = {}
    files = [*folder.glob("wandb/*run-*/run-*.wandb"), *folder.glob(".wandb/*run-*/run-*.wandb")]
    for path in sorted(files, key=lambda path: path.stat().st_ctime_ns):
        run = found.setdefault(path.stem.removeprefix("run-"), Run(path.stem.removeprefix("run-")))
        run.ended = False
        for content in records(path):
            _take(run, _RECORD.FromString(content))
    return list(found.values())


def the_run(folder: Path) -> Run:
    [run] = runs(folder)
    return run


def _take(run: Run, record: Any) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run.project, run.name = record.run.project, record.run.display_name
        run.group = record.run.run_group
        _update(run.config, record.run.config.update)
    elif kind == "config":
        _update(run.config, record.config.update)
    elif kind == "history":
        row: dict[str, Any] = {}
        _update(row, record.history.item)
        run.rows.append(row)
    elif kind == "summary":
        _update(run.summary, record.summary.update)
    elif kind == "metric":
        run.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
    elif kind == "artifact":
        kept = record.artifact
        run.artifacts.append(
            Artifact(
                kept.name,
                list(kept.aliases),
                json.loads(kept.metadata or "{}"),
                {entry.path: Path(entry.local_path) for entry in kept.manifest.contents},
            )
        )
    elif kind == "exit":
        run.exit_codes.append(record.exit.exit_code)
        run.ended = True


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        values["/".join(item.nested_key) or item.key] = json.loads(item.value_json)


def records(path: Path) -> Iterator[bytes]:
    """Yield the complete records of a file."""
    content = path.read_bytes()
    assert content[:6] == b":W&B" + struct.pack("<H", 0xBEE1) or not content
    at, parts = _HEADER, b""
    while at + _HEADER <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, at)
        data = content[at + _HEADER : at + _HEADER + length]
        if kind == 0 or len(data) < length:
            return
        assert zlib.crc32(bytes([kind]) + data) == checksum
        at += _HEADER + length
        parts = data if kind in (_FULL, _FIRST) else parts + data
        if kind in (_FULL, _LAST):
            yield parts
