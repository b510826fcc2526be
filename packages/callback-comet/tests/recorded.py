"""`Recorded`: what Comet has of an experiment, and a reader for offline archives."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZipFile

NOISE = ("curr_step", "curr_epoch", "process duration")
"""Names that Comet's SDK adds: parameters at each logged step, and a metric at the end."""


@dataclass
class Recorded:
    """The content of an experiment, by the names under which it was logged."""

    key: str
    project: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    points: list[tuple[str, int, float]] = field(default_factory=list)
    texts: list[tuple[str, int, str]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    graph: str | None = None
    crashed: bool = False
    ended: bool = False
    kinds: set[str] = field(default_factory=set)

    def add_point(self, metric: dict[str, Any]) -> None:
        if metric["metricName"] not in NOISE:
            value = float(metric["metricValue"])
            self.points.append((metric["metricName"], metric["step"], value))

    def add_parameter(self, name: str, value: Any) -> None:
        if name not in NOISE:
            self.parameters[name] = value

    def add_file(self, about: dict[str, Any], metadata: dict[str, Any], content: bytes) -> None:
        if about.get("type") == "text-sample":
            self.texts.append((metadata["name"], int(about["step"]), content.decode()))
        else:
            self.files[about["fileName"]] = content

    def curves(self) -> dict[tuple[str, int], float]:
        """Return the values by name and step, and check that there are no duplicates."""
        found: dict[tuple[str, int], float] = {}
        for name, step, value in self.points:
            assert (name, step) not in found, f"{name} has two values at step {step}"
            found[name, step] = value
        return found


def archives_in(directory: Path) -> list[Recorded]:
    """Return the experiments in a directory's offline archives, oldest first.

    Archives of the same experiment are merged. Empty archives are skipped: Comet creates one when
    an experiment begins, and fills it when the experiment ends.
    """
    found: dict[str, Recorded] = {}
    for path in sorted(directory.glob("*.zip"), key=lambda path: path.stat().st_mtime_ns):
        with ZipFile(path) as archive:
            if archive.namelist():
                about = json.loads(archive.read("experiment.json"))
                recorded = found.setdefault(about["offline_id"], Recorded(about["offline_id"]))
                _read(archive, about, recorded)
    return list(found.values())


def _read(archive: ZipFile, about: dict[str, Any], recorded: Recorded) -> None:
    recorded.project = about["project_name"]
    recorded.crashed = recorded.crashed or about["customer_error_reported"]
    recorded.ended = about["stop_time"] is not None
    for line in archive.read("messages.json").decode().splitlines():
        message = json.loads(line)
        kind, content = message["type"], message["payload"]
        recorded.kinds.add(kind)
        if kind == "metric_msg":
            recorded.add_point(content["metric"])
        elif kind == "parameter_msg":
            given = content.get("param") or content["params"]
            recorded.add_parameter(given["paramName"], given["paramValue"])
        elif kind == "log_other":
            recorded.others[content["key"]] = content["value"]
        elif kind == "graph":
            recorded.graph = content["graph"]
        elif kind == "file_upload":
            data = archive.read(content["file_path"])
            recorded.add_file(content["additional_params"], content["metadata"], data)
