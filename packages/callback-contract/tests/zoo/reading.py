"""Readers of the stores: none uses the code of the trackers that write them."""

import csv
import json
import sqlite3
from contextlib import closing
from pathlib import Path

from callback_contract import RecordedRun


class _Runs:
    """Runs that are put together of events, in the order of their first ones."""

    def __init__(self):
        self.runs, self.seen = {}, set()

    def take(self, event):
        run = self.runs.setdefault(event["run"], RecordedRun(id=event["run"], points={}, text={}))
        if "parameters" in event:
            run.parameters = {**run.parameters, **event["parameters"]}
        for name, value, step, *more in event.get("points", ()):
            point = (run.id, name, step, repr(value), *more)
            if more and point in self.seen:
                continue  # which was sent again: it has the time of the first
            self.seen.add(point)
            kept = run.text if isinstance(value, str) else run.points
            kept.setdefault(name, []).append((step, value))
        if event.get("status") is not None:
            run.status = event["status"]
        if "file" in event:
            run.files = run.files | {event["file"]}

    def all(self):
        return list(self.runs.values())


def runs_of_events(events):
    """Return the runs in a list of events."""
    runs = _Runs()
    for event in events:
        runs.take(event)
    return runs.all()


def lines_of(path):
    """Return the whole lines of JSON in a file."""
    events = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue  # which a kill has cut short
    return events


def read_lines(path):
    """Return the runs in a file of JSON lines."""
    return runs_of_events(lines_of(Path(path)))


def read_journals(directory):
    """Return the runs in a directory with a file of JSON lines for each, oldest first."""
    paths = Path(directory).glob("*.jsonl")
    events = [lines for path in paths if (lines := lines_of(path))]
    events.sort(key=lambda lines: lines[0]["began"])
    return [run for lines in events for run in runs_of_events(lines)]


def read_database(path):
    """Return the runs in a database."""
    if not Path(path).exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'runs'").fetchall():
            return []
        runs = []
        for run, status in database.execute("SELECT id, status FROM runs ORDER BY rowid"):
            recorded = RecordedRun(id=run, points={}, text={}, status=status)
            recorded.parameters = {
                name: json.loads(value)
                for name, value in database.execute(
                    "SELECT name, value FROM parameters WHERE run = ?", (run,)
                )
            }
            rows = database.execute(
                "SELECT name, step, value FROM points WHERE run = ? ORDER BY rowid", (run,)
            )
            for name, step, value in rows:
                value = json.loads(value)
                kept = recorded.text if isinstance(value, str) else recorded.points
                kept.setdefault(name, []).append((step, value))
            runs.append(recorded)
        return runs


def number(text):
    """Return the number that was written."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def read_tables(directory):
    """Return the runs in a directory with one for each: `metrics.csv`, `run.json`, `files`."""
    runs = []
    for path in Path(directory).glob("*/run.json"):
        kept = json.loads(path.read_text())
        run = RecordedRun(id=path.parent.name, parameters=kept["parameters"], points={})
        run.status = kept.get("status")
        table = path.parent / "metrics.csv"
        if table.exists():
            with table.open(newline="") as file:
                for row in csv.DictReader(file):
                    if row["value"] == "value":
                        continue  # a header that was written twice
                    point = (int(row["step"]), number(row["value"]))
                    run.points.setdefault(row["name"], []).append(point)
        files = path.parent / "files"
        found = (file for file in files.rglob("*") if file.is_file())
        run.files = frozenset(file.relative_to(files).as_posix() for file in found)
        runs.append((kept["began"], run))
    return [run for _, run in sorted(runs, key=lambda pair: pair[0])]
