"""Reading runs without MLflow: out of the tables of a database, or from a server's REST API."""

from __future__ import annotations

import json
import sqlite3
import urllib.parse
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple


class Read(NamedTuple):
    """What is kept of a run; its points are key, step, value and milliseconds."""

    id: str
    name: str
    status: str
    parameters: dict[str, str]
    tags: dict[str, str]
    points: list[tuple[str, int, float, int]]

    def of(self, key: str) -> list[tuple[int, float]]:
        """Return steps and values of a metric, in the order of the steps."""
        return sorted((step, value) for name, step, value, _ in self.points if name == key)

    def values(self) -> dict[tuple[str, int], float]:
        """Return the values by metric and step, of which each is there once."""
        twice = [one for one, n in Counter((k, s) for k, s, _, _ in self.points).items() if n > 1]
        assert twice == [], "is there more than once"
        return {(key, step): value for key, step, value, _ in self.points}


class Database:
    """The SQLite database of a store."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, query: str, *values: Any) -> list[Any]:
        with sqlite3.connect(self.path) as database:
            return database.execute(query, values).fetchall()

    def runs(self, experiment: str) -> list[Read]:
        """Return the runs of an experiment, oldest first."""
        found = self.ask(
            "select run_uuid, r.name, status from runs r join experiments e using (experiment_id) "
            "where e.name = ? order by start_time, r.rowid",
            experiment,
        )
        return [self._run(*row) for row in found]

    def _run(self, run: str, name: str, status: str) -> Read:
        parameters = self.ask("select key, value from params where run_uuid = ?", run)
        tags = self.ask("select key, value from tags where run_uuid = ?", run)
        points = self.ask(
            "select key, step, case is_nan when 1 then 'nan' else value end, timestamp "
            "from metrics where run_uuid = ?",
            run,
        )
        points = [(key, step, float(value), time) for key, step, value, time in points]
        return Read(run, name, status, dict(parameters), dict(tags), points)


class Server:
    """The REST API of an MLflow server."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def runs(self, experiment: str) -> list[Read]:
        """Return the runs of an experiment, oldest first."""
        found = self._get("experiments/get-by-name", experiment_name=experiment)
        asked = {
            "experiment_ids": [found["experiment"]["experiment_id"]],
            "order_by": ["attributes.start_time"],
        }
        answer = self._ask("runs/search", json.dumps(asked).encode())
        return [self._run(run) for run in answer.get("runs", [])]

    def artifacts(self, run: str, path: str) -> dict[str, int]:
        """Return names and sizes of the files in a folder of a run's artifacts."""
        answer = self._get("artifacts/list", run_id=run, path=path)
        return {entry["path"]: int(entry["file_size"]) for entry in answer["files"]}

    def artifact(self, run: str, path: str) -> bytes:
        """Return what is in a file of a run's artifacts."""
        where = urllib.parse.urlencode({"run_id": run, "path": path})
        with urllib.request.urlopen(f"{self.uri}/get-artifact?{where}", timeout=30) as answer:
            return bytes(answer.read())

    def _run(self, run: dict[str, Any]) -> Read:
        info, data = run["info"], run["data"]
        keys = [metric["key"] for metric in data.get("metrics", [])]
        return Read(
            info["run_id"],
            info["run_name"],
            info["status"],
            {entry["key"]: entry["value"] for entry in data.get("params", [])},
            {entry["key"]: entry["value"] for entry in data.get("tags", [])},
            [point for key in keys for point in self._history(info["run_id"], key)],
        )

    def _history(self, run: str, key: str) -> list[tuple[str, int, float, int]]:
        answer = self._get("metrics/get-history", run_id=run, metric_key=key)
        return [
            (key, int(m.get("step", 0)), float(m["value"]), int(m["timestamp"]))
            for m in answer["metrics"]
        ]

    def _get(self, route: str, **asked: str) -> Any:
        return self._ask(f"{route}?{urllib.parse.urlencode(asked)}")

    def _ask(self, route: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/{route}", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)
