"""Trackers on `callback_core.tracking` with stores of their own, which specimens are made of.

They are correct as they stand; `tracking_correct` enters them as such.
"""

import csv
import json
import shutil
import sqlite3
import time
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from callback_contract import TrackerContract
from callback_core.tracking import Limits, Tracker, TrackerCallback
from zoo import reading, service


class StoreCallback(TrackerCallback):
    """Sends a training to one of the trackers below."""


class LinesTracker(Tracker):
    """Keeps all runs in one file of JSON lines."""

    name = "zoo_lines"
    limits = Limits(text=True)

    def __init__(self, path):
        self.path = str(path)
        self.file = None

    def settings(self):
        return {"path": self.path}

    def open(self, opening):
        self.run = opening.run_id or uuid.uuid4().hex
        self.file = open(self.path, "a")
        self.file.write("\n")  # behind a line that a kill may have cut short
        self.write(name=opening.name, status="running")
        return self.run

    def log_parameters(self, parameters):
        self.write(parameters=dict(parameters))

    def log_metrics(self, points):
        self.write(points=[(p.name, p.value, p.step, p.time) for p in points])

    def log_text(self, points):
        self.log_metrics(points)

    def close(self, status):
        self.write(status=status)
        self.file.close()

    def write(self, **event):
        self.file.write(json.dumps({"run": self.run, **event}, default=str) + "\n")
        self.file.flush()


class DatabaseTracker(Tracker):
    """Keeps all runs in a SQLite database, where a point that comes twice is there once."""

    name = "zoo_database"
    limits = Limits(text=True, batch_size=200)
    rewinds = True

    def __init__(self, path):
        self.path = str(path)
        self.database = None

    def settings(self):
        return {"path": self.path}

    def open(self, opening):
        self.database = sqlite3.connect(self.path, timeout=10)
        with self.database:
            self.database.executescript(
                """
                CREATE TABLE IF NOT EXISTS runs (id PRIMARY KEY, name, status);
                CREATE TABLE IF NOT EXISTS parameters (run, name, value, PRIMARY KEY (run, name));
                CREATE TABLE IF NOT EXISTS points
                    (run, name, step, value, time, UNIQUE (run, name, step, value, time));
                """
            )
            self.run = self.begin_run(opening)
            if opening.rewind_to is not None:
                self.forget_from(opening.rewind_to)
        return self.run

    def begin_run(self, opening):
        run = opening.run_id or uuid.uuid4().hex
        self.database.execute(
            "INSERT INTO runs VALUES (?, ?, 'running') "
            "ON CONFLICT (id) DO UPDATE SET status = 'running'",
            (run, opening.name),
        )
        return run

    def forget_from(self, step):
        self.database.execute("DELETE FROM points WHERE run = ? AND step >= ?", (self.run, step))

    def log_parameters(self, parameters):
        rows = [(self.run, name, json.dumps(v, default=str)) for name, v in parameters.items()]
        with self.database:
            self.database.executemany("INSERT OR REPLACE INTO parameters VALUES (?, ?, ?)", rows)

    def log_metrics(self, points):
        rows = [(self.run, p.name, p.step, self.encoded(p.value), p.time) for p in points]
        with self.database:
            self.database.executemany("INSERT OR IGNORE INTO points VALUES (?, ?, ?, ?, ?)", rows)

    def log_text(self, points):
        self.log_metrics(points)

    def encoded(self, value):
        return json.dumps(value)  # as text: SQLite has neither NaN nor large whole numbers

    def close(self, status):
        with self.database:
            self.database.execute("UPDATE runs SET status = ? WHERE id = ?", (status, self.run))
        self.database.close()


class TablesTracker(Tracker):
    """Keeps each run in a directory: a table of all points, and the checkpoints."""

    name = "zoo_tables"
    takes_checkpoints = True

    def __init__(self, directory):
        self.directory = str(directory)
        self.file = None

    def settings(self):
        return {"directory": self.directory}

    def open(self, opening):
        self.run = opening.run_id or uuid.uuid4().hex
        self.folder = Path(self.directory) / self.run
        self.folder.mkdir(parents=True, exist_ok=True)
        self.describe(status="running")
        path = self.folder / "metrics.csv"
        is_new = not path.exists() or path.stat().st_size == 0
        self.file = path.open("a", newline="")
        self.rows = csv.writer(self.file)
        if is_new:
            self.rows.writerow(("name", "step", "value"))
        return self.run

    def describe(self, **what):
        path = self.folder / "run.json"
        known = {"began": time.time(), "parameters": {}}
        if path.exists():
            known = json.loads(path.read_text())
        beside = path.with_name("run.json.new")
        beside.write_text(json.dumps({**known, **what}, default=str))
        beside.replace(path)

    def log_parameters(self, parameters):
        self.describe(parameters=dict(parameters))

    def log_metrics(self, points):
        for point in points:
            self.rows.writerow((point.name, point.step, self.written(point.value)))
        self.file.flush()

    def written(self, value):
        return repr(value)

    def log_files(self, upload):
        target = self.folder / "files" / upload.name
        beside = target.with_name(f"{target.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(upload.path, beside)
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)

    def close(self, status):
        self.file.close()
        self.describe(status=status)


class PostTracker(Tracker):
    """Posts each batch to a service, which takes what comes twice as one."""

    name = "zoo_post"
    limits = Limits(text=True, batch_size=50)

    def __init__(self, url, key=None):
        self.url = url
        self.key = key

    def settings(self):
        return {"url": self.url}  # the key is for the environment of whoever delivers

    def open(self, opening):
        self.run = opening.run_id or uuid.uuid4().hex
        self.post(name=opening.name, status="running")
        return self.run

    def log_parameters(self, parameters):
        self.post(parameters=dict(parameters))

    def log_metrics(self, points):
        self.post(points=[(p.name, p.value, p.step, p.time) for p in points])

    def log_text(self, points):
        self.log_metrics(points)

    def close(self, status):
        if status is not None:
            self.post(status=status)

    def post(self, **event):
        body = json.dumps({"run": self.run, **event}, default=str).encode()
        headers = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(self.url, body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()


ACTIVE = []
"""The runs that the user has opened in a database, the innermost last."""


@contextmanager
def opened_run(path):
    """Open a run in a database as a user does, and yield its id."""
    run = uuid.uuid4().hex
    tracker = DatabaseTracker(path)
    tracker.database = sqlite3.connect(path, timeout=10)
    with tracker.database:
        tracker.database.execute("CREATE TABLE IF NOT EXISTS runs (id PRIMARY KEY, name, status)")
        tracker.database.execute("INSERT INTO runs VALUES (?, 'mine', 'running')", (run,))
    tracker.database.close()
    ACTIVE.append(run)
    try:
        yield run
    finally:
        ACTIVE.remove(run)


class AdoptingTracker(DatabaseTracker):
    """Logs into the run that the user has open, if there is one, and leaves it open."""

    def adopt(self):
        return ACTIVE[-1] if ACTIVE else None

    def close(self, status):
        super().close("running" if status is None else status)


class LinesSuite(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {
        *("state", "resume", "status", "parameters", "redacts", "unreachable"),
        *("text", "non_finite"),
    }
    tracker = LinesTracker

    def make(self, output_dir):
        return StoreCallback(self.tracker(output_dir / "runs.jsonl"))

    def make_unreachable(self, output_dir):
        (output_dir / "away").touch()
        path = output_dir / "away" / "runs.jsonl"
        return StoreCallback(self.tracker(path), flush_limit=self.flush_limit)

    def deliver_later(self, output_dir):
        (output_dir / "away").unlink()
        (output_dir / "away").mkdir()
        super().deliver_later(output_dir)

    def read(self, output_dir):
        paths = sorted(output_dir.rglob("runs.jsonl"))
        return [run for path in paths for run in reading.read_lines(path)]


class DatabaseSuite(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {
        *("state", "resume", "rewinds", "status", "parameters", "redacts", "unreachable"),
        *("text", "non_finite"),
    }
    tracker = DatabaseTracker

    def make(self, output_dir):
        return StoreCallback(self.tracker(output_dir / "runs.db"))

    def make_unreachable(self, output_dir):
        (output_dir / "away").touch()
        path = output_dir / "away" / "runs.db"
        return StoreCallback(self.tracker(path), flush_limit=self.flush_limit)

    def deliver_later(self, output_dir):
        (output_dir / "away").unlink()
        (output_dir / "away").mkdir()
        super().deliver_later(output_dir)

    def read(self, output_dir):
        paths = sorted(output_dir.rglob("runs.db"))
        return [run for path in paths for run in reading.read_database(path)]


class TablesSuite(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {
        *("state", "resume", "status", "parameters", "redacts", "files", "non_finite"),
    }
    tracker = TablesTracker

    def make(self, output_dir):
        return StoreCallback(self.tracker(output_dir / "runs"))

    def read(self, output_dir):
        return reading.read_tables(output_dir / "runs")


class PostSuite(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {
        *("state", "resume", "status", "parameters", "redacts", "unreachable"),
        *("text", "non_finite"),
    }
    tracker = PostTracker

    def make(self, output_dir):
        return StoreCallback(self.tracker(service.url(output_dir)))

    def make_unreachable(self, output_dir):
        with service.Service() as gone:
            url = gone.url + service.url(output_dir).removeprefix(service.url())
        (output_dir / "address").write_text(url)
        return StoreCallback(self.tracker(url), flush_limit=self.flush_limit)

    def deliver_later(self, output_dir):
        port = urlsplit((output_dir / "address").read_text()).port
        with service.Service(port):
            super().deliver_later(output_dir)

    def read(self, output_dir):
        return reading.runs_of_events(service.received(output_dir))


class AdoptingSuite(DatabaseSuite):
    __test__ = False
    capabilities = {*DatabaseSuite.capabilities, "adopts"}
    tracker = AdoptingTracker

    def users_run(self, output_dir):
        return opened_run(output_dir / "runs.db")
