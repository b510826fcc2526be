# ruff: noqa: RUF012
"""Trackers on `callback_core.tracking` that are wrong in one way each: their runs, their points."""

import json
import sqlite3
import urllib.error
import uuid
from pathlib import Path

from second_specimens import faulty
from second_store import (
    FolderTracker,
    Server,
    SqliteTracker,
    WebTracker,
    bring_back,
    read_folders,
    read_server,
    read_sqlite,
    server_for,
)

from callback_contract import RecordedRun, TrackerContract
from callback_core.tracking import Limits, Rejected, Tracker, TrackerCallback

BASIC = {"state", "resume", "status", "parameters", "redacts"}


class InSqlite(TrackerContract):
    """What the suites have in common whose store is a database."""

    __test__ = False
    contract = (2, 0)
    capabilities = BASIC | {"rewinds", "non_finite"}

    def read(self, output_dir):
        return read_sqlite(output_dir / "runs.db")


class InFolders(TrackerContract):
    """What the suites have in common whose store is a directory."""

    __test__ = False
    contract = (2, 0)
    capabilities = BASIC | {"rewinds", "non_finite"}

    def read(self, output_dir):
        return read_folders(output_dir / "runs")


class InWeb(TrackerContract):
    """What the suites have in common whose store is a server."""

    __test__ = False
    contract = (2, 0)
    capabilities = BASIC | {"unreachable"}
    flush_limit = 3.0
    secrets = (Server.key,)

    def read(self, output_dir):
        return read_server(output_dir)

    def deliver_later(self, output_dir):
        bring_back(output_dir)
        super().deliver_later(output_dir)


class AutoIdTracker(SqliteTracker):
    name = "zoo_auto_id"

    def begin_run(self, opening):
        with self.database:
            number = self.database.execute("select coalesce(max(number), 0) from runs").fetchone()
        return f"{opening.name or 'run'}-{number[0] + 1}"


@faulty(
    "opens a new run where it is told which one to go on with",
    source="Lightning-AI/pytorch-lightning#5403",
)
class NewRunOnResume(InSqlite):
    __test__ = False

    def make(self, output_dir):
        return TrackerCallback(AutoIdTracker(output_dir / "runs.db"))


class RewindingTracker(SqliteTracker):
    name = "zoo_rewinding"

    def forget(self, run, step):
        with self.database:
            self.database.execute("delete from points where run = ? and step > ?", (run, step))


@faulty("forgets what is behind the step that it is to rewind to, but not that step itself")
class RewindsOneShort(InSqlite):
    __test__ = False

    def make(self, output_dir):
        return TrackerCallback(RewindingTracker(output_dir / "runs.db"))


class OutcomeTracker(FolderTracker):
    name = "zoo_outcome"
    outcomes = {"finished": "finished", "failed": "failed"}

    def close(self, status):
        self.say(self.outcomes.get(status, "finished"))


@faulty(
    "a training that was interrupted is kept as finished",
    source="Lightning-AI/pytorch-lightning#21787",
)
class InterruptedIsFinished(InFolders):
    __test__ = False

    def make(self, output_dir):
        return TrackerCallback(OutcomeTracker(output_dir / "runs"))


class StrictWebTracker(WebTracker):
    name = "zoo_strict_web"

    def log_metrics(self, points):
        try:
            super().log_metrics(points)
        except urllib.error.HTTPError as error:
            raise Rejected(f"the server answers {error.code}") from error


@faulty("takes each HTTP error for a refusal, also one of a server that is down for a moment")
class RejectsWhenServerIsDown(InWeb):
    __test__ = False

    def make(self, output_dir):
        return TrackerCallback(StrictWebTracker(server_for(output_dir).url))

    def make_unreachable(self, output_dir):
        server = server_for(output_dir)
        server.is_busy = True
        return TrackerCallback(StrictWebTracker(server.url), flush_limit=self.flush_limit)


class SelfDescribingTracker(WebTracker):
    name = "zoo_self_describing"

    def settings(self):
        return {"url": self.url, "key": self.key}


@faulty("hands its key over with its settings, which go to a file")
class KeyInSettings(InWeb):
    __test__ = False

    def make(self, output_dir):
        return TrackerCallback(SelfDescribingTracker(server_for(output_dir).url, Server.key))

    def make_unreachable(self, output_dir):
        server = server_for(output_dir, mode="broken")
        tracker = SelfDescribingTracker(server.url, Server.key)
        return TrackerCallback(tracker, flush_limit=self.flush_limit)


class RowTracker(Tracker):
    """Keeps a row of JSON for each step."""

    name = "zoo_rows"
    limits = Limits(non_finite=False, deliver_every=0.0)
    rewinds = True

    def __init__(self, path):
        self.path = str(path)

    def settings(self):
        return {"path": self.path}

    def open(self, opening):
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self.run = opening.run_id or uuid.uuid4().hex
        self.database = sqlite3.connect(self.path)
        with self.database:
            self.database.execute(
                "create table if not exists history(run, step, data, primary key(run, step))"
            )
            self.database.execute("create table if not exists runs(id primary key, status, config)")
            self.database.execute(
                "insert into runs(id, status, config) values(?, 'running', '{}')"
                " on conflict(id) do update set status = 'running'",
                (self.run,),
            )
            if opening.rewind_to is not None:
                where = (self.run, opening.rewind_to)
                self.database.execute("delete from history where run = ? and step >= ?", where)
        return self.run

    def log_parameters(self, parameters):
        with self.database:
            self.database.execute(
                "update runs set config = ? where id = ?",
                (json.dumps(dict(parameters), default=str), self.run),
            )

    def log_metrics(self, points):
        rows = {}
        for point in points:
            rows.setdefault(point.step, {})[point.name] = point.value
        with self.database:
            self.database.executemany(
                "insert or replace into history values(?, ?, ?)",
                [(self.run, step, json.dumps(values)) for step, values in rows.items()],
            )

    def close(self, status):
        with self.database:
            self.database.execute("update runs set status = ? where id = ?", (status, self.run))
        self.database.close()


@faulty("what comes later for a step takes the place of what was there of that step")
class ReplacesTheRowOfAStep(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = BASIC | {"rewinds"}

    def make(self, output_dir):
        return TrackerCallback(RowTracker(output_dir / "rows.db"), delivery="inline")

    def read(self, output_dir):
        if not (output_dir / "rows.db").exists():
            return []
        database = sqlite3.connect(output_dir / "rows.db")
        runs = []
        for run, status, config in database.execute("select id, status, config from runs"):
            points = {}
            rows = database.execute(
                "select step, data from history where run = ? order by rowid", (run,)
            )
            for step, data in rows:
                for name, value in json.loads(data).items():
                    points.setdefault(name, []).append((step, value))
            runs.append(RecordedRun(run, json.loads(config), points, status=status))
        database.close()
        return runs
