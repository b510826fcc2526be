"""What the trackers of this zoo send to: good trackers, a server, and readers of their stores."""

import csv
import json
import math
import sqlite3
import urllib.request
import uuid
from pathlib import Path

from callback_contract import RecordedRun
from callback_contract.testing import Answer, StandIn
from callback_core.tracking import Limits, Tracker

SCHEMA = """
create table if not exists runs(number integer primary key, id text unique, status text);
create table if not exists parameters(run text, name text, value text, primary key(run, name));
create table if not exists points(run text, name text, step integer, value text, time real);
"""


class SqliteTracker(Tracker):
    """Keeps runs in a database."""

    name = "zoo_sqlite"
    limits = Limits(batch_size=200)
    rewinds = True

    def __init__(self, path):
        self.path = str(path)

    def settings(self):
        return {"path": self.path}

    def open(self, opening):
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(self.path)
        with self.database:
            self.database.executescript(SCHEMA)
        self.run = self.begin_run(opening)
        self.set_status("running")
        return self.run

    def begin_run(self, opening):
        if opening.run_id is None:
            return uuid.uuid4().hex
        if opening.rewind_to is not None:
            self.forget(opening.run_id, opening.rewind_to)
        return opening.run_id

    def forget(self, run, step):
        with self.database:
            self.database.execute("delete from points where run = ? and step >= ?", (run, step))

    def log_parameters(self, parameters):
        rows = [(self.run, name, str(value)) for name, value in parameters.items()]
        with self.database:
            self.database.executemany("insert or replace into parameters values(?, ?, ?)", rows)

    def log_metrics(self, points):
        rows = [(self.run, p.name, p.step, repr(float(p.value)), p.time) for p in points]
        with self.database:
            self.database.executemany("insert into points values(?, ?, ?, ?, ?)", rows)

    def close(self, status):
        if status is not None:
            self.set_status(status)
        self.database.close()

    def set_status(self, status):
        with self.database:
            self.database.execute(
                "insert into runs(id, status) values(?, ?)"
                " on conflict(id) do update set status = excluded.status",
                (self.run, status),
            )


def read_sqlite(path):
    """Return the runs of a database."""
    if not Path(path).exists():
        return []
    database = sqlite3.connect(path)
    try:
        runs = []
        for run, status in database.execute("select id, status from runs order by number"):
            points = {}
            of_run = "select name, step, value from points where run = ? order by rowid"
            for name, step, value in database.execute(of_run, (run,)):
                points.setdefault(name, []).append((step, float(value)))
            of_run = "select name, value from parameters where run = ?"
            parameters = dict(database.execute(of_run, (run,)))
            runs.append(RecordedRun(id=run, parameters=parameters, points=points, status=status))
        return runs
    finally:
        database.close()


class FolderTracker(Tracker):
    """Keeps each run in a folder: a table of points, parameters, a status."""

    name = "zoo_folder"
    rewinds = True

    def __init__(self, root):
        self.root = str(root)

    def settings(self):
        return {"root": self.root}

    def open(self, opening):
        root = Path(self.root)
        root.mkdir(parents=True, exist_ok=True)
        run = opening.run_id or f"{len(list(root.iterdir())):04d}-{uuid.uuid4().hex[:8]}"
        self.folder = root / run
        self.folder.mkdir(exist_ok=True)
        table = self.folder / "points.tsv"
        if opening.rewind_to is not None and table.exists():
            lines = table.read_text().splitlines(keepends=True)
            kept = [line for line in lines if int(line.split("\t")[1]) < opening.rewind_to]
            table.write_text("".join(kept))
        self.say("running")
        return run

    def log_parameters(self, parameters):
        values = {name: str(value) for name, value in parameters.items()}
        (self.folder / "parameters.json").write_text(json.dumps(values))

    def log_metrics(self, points):
        with (self.folder / "points.tsv").open("a") as table:
            table.writelines(f"{p.name}\t{p.step}\t{self.shown(p.value)}\n" for p in points)

    def shown(self, value):
        return repr(float(value))

    def close(self, status):
        self.say(status)

    def say(self, status):
        (self.folder / "status").write_text(status)


def read_folders(root):
    """Return the runs of a directory of folders."""
    runs = []
    for folder in sorted(Path(root).glob("*/")):
        points = {}
        if (folder / "points.tsv").exists():
            with (folder / "points.tsv").open(newline="") as table:
                for name, step, value in csv.reader(table, delimiter="\t", quoting=csv.QUOTE_NONE):
                    points.setdefault(name, []).append((int(step), float(value)))
        parameters = folder / "parameters.json"
        runs.append(
            RecordedRun(
                id=folder.name,
                parameters=json.loads(parameters.read_text()) if parameters.exists() else {},
                points=points,
                status=(folder / "status").read_text(),
            )
        )
    return runs


class Server(StandIn):
    """Takes events of runs, if the key is right, and keeps each once."""

    keep_alive = False
    key = "zoo-key-5c1f0b"
    is_busy = False  # so that it takes no points for a while

    def __init__(self, file):
        super().__init__()
        self.file = Path(file)

    def answer(self, request):
        if request.headers["Authorization"] != f"Bearer {self.key}":
            return Answer(401)
        if self.is_busy and b'"points"' in request.body:
            return Answer(503)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps(request.json()) + "\n")
        return Answer()


SERVERS = {}


def server_for(output_dir, mode="ok"):
    """Return the server of a directory, which runs from then on."""
    if output_dir not in SERVERS:
        SERVERS[output_dir] = Server(output_dir / "server" / "events.jsonl")
    if mode != "ok":
        SERVERS[output_dir].mode = mode
    SERVERS[output_dir].start()
    return SERVERS[output_dir]


class WebTracker(Tracker):
    """Sends runs to a server, which keeps what it has already once."""

    name = "zoo_web"
    limits = Limits(batch_size=100, non_finite=False)

    def __init__(self, url, key=Server.key):
        self.url = url
        self.key = key

    def settings(self):
        return {"url": self.url}

    def open(self, opening):
        self.run = opening.run_id or uuid.uuid4().hex
        self.post("open")
        return self.run

    def log_parameters(self, parameters):
        self.post("parameters", {name: str(value) for name, value in parameters.items()})

    def log_metrics(self, points):
        self.post("points", [(p.name, p.step, float(p.value), p.time) for p in points])

    def close(self, status):
        self.post("close", status)

    def post(self, event, content=None):
        body = json.dumps({"run": self.run, "event": event, "content": content}).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=10):
            pass


def read_server(output_dir):
    """Return the runs that a server was sent; what was sent twice, with one time, counts once."""
    runs, seen = {}, set()
    for file in Path(output_dir).rglob("events.jsonl"):
        for line in file.read_text().splitlines():
            run_id, event, content = json.loads(line).values()
            run = runs.setdefault(run_id, RecordedRun(run_id, {}, {}, status="running"))
            if event == "open":
                run.status = "running"
            elif event == "parameters":
                run.parameters.update(content)
            elif event == "points":
                for point in content:
                    name, step, value = point[:3]
                    if (run_id, *point) not in seen and not math.isnan(value):
                        seen.add((run_id, *point))
                        run.points.setdefault(name, []).append((step, value))
            else:
                run.status = content
    return list(runs.values())


def bring_back(output_dir):
    """Let the server of a directory work."""
    SERVERS[output_dir].mode = "ok"
    SERVERS[output_dir].is_busy = False
