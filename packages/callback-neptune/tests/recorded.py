"""`Recorded`: what Neptune has of a run, and a reader for offline directories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from callback_contract import RecordedRun


@dataclass
class Recorded:
    """The content of a run, by the paths that the web app shows.

    Attributes:
        fields: The single values.
        series: The steps, values and times of each series of numbers.
        texts: The steps, values and times of each series of strings.
        file_sets: The content of each file of each file set, by file name.
        deleted: The deleted paths, in order.
    """

    id: str
    project: str = ""
    custom_id: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    series: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)
    texts: dict[str, list[tuple[int, str, float]]] = field(default_factory=dict)
    file_sets: dict[str, dict[str, bytes]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    git: Any = None

    def take(self, operation: dict[str, Any]) -> str | None:
        """Apply an operation of the SDK, and return an error message, or `None`."""
        operation = dict(operation)
        path = operation.pop("path")
        ((kind, content),) = operation.items()
        if kind in ("logFloats", "logStrings"):
            into = self.series if kind == "logFloats" else self.texts
            points = into.setdefault(path, [])  # type: ignore[attr-defined]
            for entry in content["entries"]:
                if points and points[-1][0] >= entry["step"]:
                    return f"the steps of {path} must grow, but {entry['step']} does not"
                points.append((entry["step"], entry["value"], entry["timestampMilliseconds"] / 1e3))
        elif kind == "clearStringSeries":
            self.texts[path] = []
        elif kind == "insertStrings":
            self.tags |= set(content["values"])
        elif kind == "deleteAttribute":
            if path not in self.types():
                return f"there is no {path}"
            self.delete(path)
        elif kind.startswith("assign"):
            self.fields[path] = content["value"]
        else:
            raise AssertionError(f"the stand-in does not support {kind}")
        return None

    def delete(self, path: str) -> None:
        self.deleted.append(path)
        for kept in (self.fields, self.series, self.texts, self.file_sets):
            kept.pop(path, None)  # type: ignore[attr-defined]

    def types(self) -> dict[str, str]:
        """Return Neptune's type name of each path."""
        names = {bool: "bool", int: "int", float: "float", str: "string"}
        return {
            "sys/id": "string",
            **{path: names[type(value)] for path, value in self.fields.items()},
            **dict.fromkeys(self.series, "floatSeries"),
            **dict.fromkeys(self.texts, "stringSeries"),
            **dict.fromkeys(self.file_sets, "fileSet"),
        }

    def below(self, namespace: str) -> dict[str, Any]:
        """Return the single values in a namespace, by relative path."""
        start = f"{namespace}/"
        return {p.removeprefix(start): v for p, v in self.fields.items() if p.startswith(start)}

    def curves(self, namespace: str = "finetuning") -> dict[tuple[str, int], float]:
        """Return the values by name and step, and check that there are no duplicates."""
        found: dict[tuple[str, int], float] = {}
        for path, points in self.series.items():
            assert path.startswith(f"{namespace}/")
            for step, value, _ in points:
                name = path.removeprefix(f"{namespace}/")
                assert (name, step) not in found, f"{name} is there twice at step {step}"
                found[name, step] = value
        return found

    def files(self) -> dict[str, bytes]:
        """Return all files, by path and name."""
        return {f"{p}/{n}": f for p, files in self.file_sets.items() for n, f in files.items()}


def offline_runs(folder: Path) -> list[Recorded]:
    """Return the offline runs in Neptune's data directory, oldest first.

    A run's directory holds concatenated JSON objects. Directories without them are skipped.
    """
    found = []
    made = [p for p in folder.glob("offline/run__*") if _size(p / "metadata.json")]
    for path in sorted(made, key=_creation):
        run = Recorded(path.name.split("__")[1])
        for file in sorted(path.glob("data-*.log"), key=lambda f: int(f.stem.split("-")[1])):
            for operation in _objects(file.read_text("utf-8")):
                _replay(operation["obj"], run)
        found.append(run)
    return found


def as_recorded_run(run: Recorded) -> RecordedRun:
    """Return a run in the contract's form."""
    start = "finetuning/"
    parameters = run.below("finetuning/trainer_parameters")
    parameters |= run.below("finetuning/model_parameters")
    return RecordedRun(
        id=run.id,
        parameters=parameters,
        points={p.removeprefix(start): [e[:2] for e in s] for p, s in run.series.items()},
        text={p.removeprefix(start): [e[:2] for e in s] for p, s in run.texts.items()},
        files=frozenset(run.files()),
        status=run.fields.get("finetuning/training_status", "running"),
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _creation(path: Path) -> str:
    created: str = json.loads((path / "metadata.json").read_text("utf-8"))["createdAt"]
    return created


def _objects(text: str) -> Iterator[Any]:
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        found, at = decoder.raw_decode(text, at)
        yield found
        while at < len(text) and text[at].isspace():
            at += 1


def _replay(operation: dict[str, Any], run: Recorded) -> None:
    path, kind = "/".join(operation["path"]), operation["type"]
    if kind in ("LogFloats", "LogStrings"):
        into = run.series if kind == "LogFloats" else run.texts
        entries = [(entry["step"], entry["value"], entry["ts"]) for entry in operation["values"]]
        into.setdefault(path, []).extend(entries)  # type: ignore[attr-defined]
    elif kind == "AddStrings":
        run.tags |= set(operation["values"])
    elif kind == "DeleteAttribute":
        run.delete(path)
    elif kind == "UploadFileSet":
        for folder in map(Path, operation["file_globs"]):
            files = {f.relative_to(folder).as_posix(): f for f in folder.rglob("*") if f.is_file()}
            content = {name: file.read_bytes() for name, file in files.items()}
            run.file_sets.setdefault(path, {}).update(content)
    elif kind.startswith("Assign"):
        run.fields[path] = operation["value"]
    else:
        raise AssertionError(f"no test has written {kind} so far")
