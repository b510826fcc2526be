"""Trackers on `callback_core.tracking` that are correct."""

import json
import os
import sqlite3
import uuid
from pathlib import Path

from callback_contract import Setting, TrackerContract
from callback_core.tracking import (
    Limits,
    Tracker,
    TrackerCallback,
    flattened,
    config,
)
from zoo import reading
from zoo.specimens import correct
from zoo.stores import (
    AdoptingSuite,
    DatabaseSuite,
    LinesSuite,
    LinesTracker,
    PostSuite,
    PostTracker,
    StoreCallback,
    TablesSuite,
)


@correct("All runs in one file of JSON lines.")
class Lines(LinesSuite):
    __test__ = False


@correct("All runs in a SQLite database, which can forget points.")
class Database(DatabaseSuite):
    __test__ = False


@correct("A directory for each run, with a table of its points and its checkpoints.")
class Tables(TablesSuite):
    __test__ = False


@correct("Each batch is posted to a service, with a key.")
class Post(PostSuite):
    __test__ = False
    secrets = ["zk-4f1c9d27b6e84a53"]

    def tracker(self, url):
        return PostTracker(url, "zk-4f1c9d27b6e84a53")


@correct("Logs into the run that the user has open in a database, if there is one.")
class Adopting(AdoptingSuite):
    __test__ = False


class ConfiguredTracker(LinesTracker):
    """Reads where to write to, and whether, from arguments and variables."""

    name = "zoo_configured"

    def __init__(self, path=None, disabled=None, detail=None):
        given = os.fspath(path) if isinstance(path, os.PathLike) else path
        super().__init__(config.text("path", given, "ZOO_PATH") or "runs.jsonl")
        self.is_off = config.flag("disabled", disabled, "ZOO_OFF") or False
        self.detail = config.choice("detail", detail, "ZOO_DETAIL", ["all", "metrics"]) or "all"

    @property
    def disabled(self):
        return self.is_off

    def settings(self):
        return {
            "path": os.path.abspath(self.path),
            "disabled": self.is_off,
            "detail": self.detail,
        }

    def log_parameters(self, parameters):
        if self.detail == "all":
            super().log_parameters(parameters)


@correct("Has settings: a path, a switch, and a choice.")
class Configured(LinesSuite):
    __test__ = False
    capabilities = {*LinesSuite.capabilities, "settings"}
    tracker = ConfiguredTracker
    settings = [
        Setting(
            "path",
            "ZOO_PATH",
            "runs.jsonl",
            examples=[("a.jsonl", "a.jsonl")],
            given=[("b.jsonl", "b.jsonl")],
        ),
        Setting.flag("disabled", "ZOO_OFF"),
        Setting(
            "detail",
            "ZOO_DETAIL",
            "all",
            examples=[("Metrics", "metrics"), ("all", "all")],
            given=[("metrics", "metrics")],
            wrong=["some"],
            wrong_given=[3],
            choices=["all", "metrics"],
        ),
    ]

    def make_with(self, output_dir, **arguments):
        return StoreCallback(ConfiguredTracker(**arguments))


class ProcessTracker(LinesTracker):
    name = "zoo_process"


@correct("Is delivered to by a process of its own.")
class ByProcess(LinesSuite):
    __test__ = False
    tracker = ProcessTracker

    def make(self, output_dir):
        return StoreCallback(self.tracker(output_dir / "runs.jsonl"), delivery="process")


class NarrowTracker(Tracker):
    """A store of 1995: short names of few characters, no NaN, no strings, ten points a call.

    It is written out in full, as somebody would who has no other tracker to begin with.
    """

    name = "zoo_narrow"
    limits = Limits(
        batch_size=10,
        parameter_length=60,
        parameter_count=40,
        key_characters=r"\w/.",
        key_length=48,
        non_finite=False,
    )

    def __init__(self, path):
        self.path = os.fspath(path)
        self._run = None

    def settings(self):
        return {"path": self.path}

    def parameters_of(self, arguments, model_config):
        return flattened({"model": dict(model_config), **arguments})

    def open(self, opening):
        self._run = opening.run_id or f"{opening.name or 'run'}-{uuid.uuid4().hex[:12]}"
        self._do(
            "CREATE TABLE IF NOT EXISTS runs (id PRIMARY KEY, name, status)",
            "CREATE TABLE IF NOT EXISTS parameters (run, name, value, PRIMARY KEY (run, name))",
            "CREATE TABLE IF NOT EXISTS points (run, name, step, value, time, "
            "UNIQUE (run, name, step, value, time))",
        )
        self._do("INSERT OR IGNORE INTO runs VALUES (?, ?, '')", rows=[(self._run, opening.name)])
        self._do("UPDATE runs SET status = 'running' WHERE id = ?", rows=[(self._run,)])
        return self._run

    def log_parameters(self, parameters):
        self._do(
            "INSERT OR REPLACE INTO parameters VALUES (?, ?, ?)",
            rows=[(self._run, n, json.dumps(v, default=str)) for n, v in parameters.items()],
        )

    def log_metrics(self, points):
        self._do(
            "INSERT OR IGNORE INTO points VALUES (?, ?, ?, ?, ?)",
            rows=[(self._run, p.name, p.step, json.dumps(p.value), p.time) for p in points],
        )

    def close(self, status):
        self._do("UPDATE runs SET status = ? WHERE id = ?", rows=[(status, self._run)])

    def _do(self, *statements, rows=None):
        """Do it in a transaction, on a connection that lasts as long."""
        database = sqlite3.connect(self.path, timeout=10)
        try:
            with database:
                for statement in statements:
                    if rows is None:
                        database.execute(statement)
                    else:
                        database.executemany(statement, rows)
        finally:
            database.close()


class NarrowCallback(TrackerCallback):
    """Sends a training to `NarrowTracker`.

    Args:
        path: The database.
        options: Those of any `TrackerCallback`.
    """

    def __init__(self, path, **options):
        super().__init__(NarrowTracker(path), **options)


@correct("Takes short names, few parameters, neither NaN nor strings, and says so in `limits`.")
class Narrow(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state", "resume", "status", "parameters", "redacts"}

    def make(self, output_dir):
        return NarrowCallback(output_dir / "narrow.db")

    def read(self, output_dir):
        return reading.read_database(output_dir / "narrow.db")


class FoldersTracker(Tracker):
    """Keeps each run in a file that is replaced as a whole, and has all of it at any time."""

    name = "zoo_folders"
    limits = Limits(text=True)
    rewinds = True

    def __init__(self, directory):
        self.directory = os.fspath(directory)

    def settings(self):
        return {"directory": self.directory}

    def open(self, opening):
        directory = Path(self.directory)
        directory.mkdir(parents=True, exist_ok=True)
        run = opening.run_id or uuid.uuid4().hex
        self.path = directory / f"{run}.json"
        self.kept = {"run": run, "began": opening.time, "parameters": {}, "points": []}
        if self.path.exists():
            self.kept = json.loads(self.path.read_text())
        if opening.rewind_to is not None:
            points = self.kept["points"]
            self.kept["points"] = [point for point in points if point[2] < opening.rewind_to]
        self.save(status="running")
        return run

    def log_parameters(self, parameters):
        self.save(parameters=dict(parameters))

    def log_metrics(self, points):
        known = {(p[0], p[2], p[3]) for p in self.kept["points"]}
        new = [p for p in points if (p.name, p.step, p.time) not in known]
        added = [[p.name, p.value, p.step, p.time] for p in new]
        self.save(points=self.kept["points"] + added)

    def log_text(self, points):
        self.log_metrics(points)

    def close(self, status):
        self.save(status=status)

    def save(self, **changed):
        kept = {**self.kept, **changed}
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(kept, default=str))
        beside.replace(self.path)
        self.kept = kept


@correct("A file of JSON for each run, which is replaced as a whole; it can forget points.")
class WholeFiles(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {
        *("state", "resume", "rewinds", "status", "parameters", "redacts", "text", "non_finite"),
    }

    def make(self, output_dir):
        return StoreCallback(FoldersTracker(output_dir / "runs"))

    def read(self, output_dir):
        kept = [json.loads(path.read_text()) for path in (output_dir / "runs").glob("*.json")]
        return reading.runs_of_events(sorted(kept, key=lambda run: run["began"]))
