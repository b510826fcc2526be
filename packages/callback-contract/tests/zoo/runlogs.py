"""Trackers without `callback_core.tracking`, which specimens are made of.

They are correct as they stand; `scratch_correct` enters them as such.
"""

import json
import os
import re
import shutil
import sqlite3
import time
import uuid
from contextlib import contextmanager
from pathlib import Path

from callback_contract import TrackerContract
from callback_core import TrainerCallback
from zoo import reading

SECRET_NAME = re.compile(
    r"(^|[_\W])(tokens?|password|passwd|secret|credentials?|api_?key|access_?key)$", re.IGNORECASE
)
NO_SECRET = re.compile(r"^(num|max|min|total|pad|eos|bos|cls|sep|mask|unk)_", re.IGNORECASE)
SECRET_VALUES = (
    (re.compile(r"(?<=://)[^/\s@]+@"), "***@"),
    (
        re.compile(r"(?i)\b((?:[\w-]*[_-])?(?:token|key|secret|password)\s?[=:]\s?)[^\s&'\"]+"),
        r"\1***",
    ),
    (re.compile(r"\b(hf_|gh[pousr]_|sk-|glpat-|xox[abprs]-|AKIA)[\w-]{10,}"), "***"),
)


def redacted(value, name=""):
    """Return a value that may be written down, without secrets by their names or forms."""
    if isinstance(value, dict):
        return {str(key): redacted(part, str(key)) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redacted(part, name) for part in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = str(value)
    if text and SECRET_NAME.search(name) and not NO_SECRET.search(name):
        return "***"
    for form, instead in SECRET_VALUES:
        text = form.sub(instead, text)
    return text


def plain(value):
    """Return a number or a string as one of Python's own; `None` for anything else."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, (int, float)):
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # of numpy or torch
        value = value.item()
        return value if isinstance(value, (int, float)) else None
    return None


def tracked(name):
    """Return the name as trackers show it: `train/loss`, `eval/loss`."""
    for split in ("eval", "test"):
        if name.startswith(f"{split}_"):
            return f"{split}/{name[len(split) + 1 :]}"
    return f"train/{name}"


class JournalLog(TrainerCallback):
    """Writes each run to a file of JSON lines, and goes on in it when its training is resumed.

    A checkpoint knows how long the file was, so that what a killed training has written behind it
    is cut off.
    """

    on_error = "isolate"

    def __init__(self, directory):
        self.directory = Path(directory)
        self.run = None  # the last one, also when it has ended
        self.file = None
        self.size = 0
        self.status = "finished"
        self.resumed = None

    def state_dict(self):
        return {"run": self.run, "size": self.size}

    def load_state_dict(self, state):
        self.resumed = dict(state)

    def on_train_begin(self, args, state, control, **kwargs):
        resumed, self.resumed = self.resumed, None
        if not state.is_world_process_zero:
            return
        if self.file is not None:  # the training before died without a word
            self.end("failed")
        self.status = "finished"
        if state.global_step > 0 and resumed is not None and resumed["run"] is not None:
            self.go_on(resumed["run"], resumed["size"])
        else:
            self.begin()
        self.write(status="running", parameters=self.parameters(args))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        outside = self.file is None
        if outside:  # an evaluation before or after a training
            self.reopen() if self.run is not None else self.begin()
        self.log(logs, state.global_step)
        if outside:
            self.end(self.status)

    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.status = "failed" if isinstance(exception, Exception) else "interrupted"

    def on_train_end(self, args, state, control, **kwargs):
        if self.file is not None:
            self.end(self.status)

    def parameters(self, args):
        return redacted(args.to_dict())

    def log(self, logs, step):
        points = []
        for name, value in logs.items():
            value = plain(value)
            if value is not None:
                points.append((tracked(name), self.kept(value, name), step))
        self.write(points=points)

    def kept(self, value, name):
        return redacted(value, name) if isinstance(value, str) else value

    def path(self, run):
        return self.directory / f"{run}.jsonl"

    def begin(self):
        self.directory.mkdir(parents=True, exist_ok=True)
        self.run = uuid.uuid4().hex
        self.reopen()
        self.write(began=time.time())

    def reopen(self):
        self.file = self.path(self.run).open("a")

    def go_on(self, run, size):
        path = self.path(run)
        if not path.exists():
            self.begin()
            return
        os.truncate(path, min(size, path.stat().st_size))
        self.run = run
        self.reopen()

    def write(self, **event):
        self.file.write(json.dumps({"run": self.run, **event}, default=str) + "\n")
        self.file.flush()
        self.size = self.file.tell()

    def end(self, status):
        try:
            self.write(status=status)
        finally:
            self.file.close()
            self.file = None


class DatabaseLog(TrainerCallback):
    """Writes runs to a SQLite database, a transaction for each log."""

    on_error = "isolate"

    def __init__(self, path):
        self.path = Path(path)
        self.database = None
        self.run = None
        self.rows = 0  # of the run, as of its last point
        self.status = "finished"
        self.resumed = None

    def state_dict(self):
        return {"run": self.run, "rows": self.rows}

    def load_state_dict(self, state):
        self.resumed = dict(state)

    def on_train_begin(self, args, state, control, **kwargs):
        resumed, self.resumed = self.resumed, None
        if not state.is_world_process_zero:
            return
        if self.database is not None:
            self.end("failed")
        self.connect()
        self.status = "finished"
        if state.global_step > 0 and resumed is not None and resumed["run"] is not None:
            self.run = resumed["run"]
            self.forget(resumed["rows"], state.global_step)
        else:
            self.run = self.new_id(args)
        self.say("running", args.run_name)
        parameters = redacted(args.to_dict())
        with self.database:
            self.database.executemany(
                "INSERT OR REPLACE INTO parameters VALUES (?, ?, ?)",
                [(self.run, n, json.dumps(v, default=str)) for n, v in parameters.items()],
            )

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        outside = self.database is None
        if outside:
            self.connect()
            if self.run is None:
                self.run = self.new_id(args)
                self.say("finished", args.run_name)
        try:
            self.log(logs, state.global_step)
        finally:
            if outside:
                self.database.close()
                self.database = None

    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.status = "failed" if isinstance(exception, Exception) else "interrupted"

    def on_train_end(self, args, state, control, **kwargs):
        if self.database is not None:
            self.end(self.status)

    def new_id(self, args):
        self.rows = 0
        return uuid.uuid4().hex

    def connect(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.database = sqlite3.connect(self.path, timeout=10, check_same_thread=False)
        self.database.executescript(
            """
            CREATE TABLE IF NOT EXISTS runs (id PRIMARY KEY, name, status);
            CREATE TABLE IF NOT EXISTS parameters (run, name, value, PRIMARY KEY (run, name));
            CREATE TABLE IF NOT EXISTS points (run, number, name, step, value);
            """
        )

    def forget(self, rows, step):
        """Forget what was logged behind the checkpoint."""
        with self.database:
            self.database.execute(
                "DELETE FROM points WHERE run = ? AND number >= ?", (self.run, rows)
            )
        self.rows = rows

    def say(self, status, name):
        with self.database:
            self.database.execute(
                "INSERT INTO runs VALUES (?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET status = excluded.status",
                (self.run, name, status),
            )

    def log(self, logs, step):
        rows = []
        for name, value in logs.items():
            value = plain(value)
            if value is not None and not isinstance(value, str):
                rows.append((self.run, self.rows + len(rows), *self.row(name, step, value)))
        with self.database:
            self.database.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?)", rows)
        self.rows += len(rows)

    def row(self, name, step, value):
        return tracked(name), step, json.dumps(value)

    def end(self, status):
        try:
            self.say(status, None)
        finally:
            self.database.close()
            self.database = None


class FilesLog(JournalLog):
    """A journal beside which the checkpoints are kept."""

    def on_save(self, args, state, control, checkpoint_dir=None, **kwargs):
        if state.is_world_process_zero and self.file is not None:
            directory = checkpoint_dir or f"{args.output_dir}/checkpoint-{state.global_step}"
            self.keep(Path(directory))

    def keep(self, directory):
        target = self.directory / "files" / self.run / directory.name
        beside = target.with_name(f"{target.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(directory, beside)
        shutil.rmtree(target, ignore_errors=True)
        beside.rename(target)


OPENED = []
"""The runs that the user has opened, the innermost last."""


@contextmanager
def opened_journal(directory):
    """Open a run as a user does, and yield its id."""
    mine = JournalLog(directory)
    mine.begin()
    mine.write(status="running")
    mine.file.close()
    OPENED.append(mine.run)
    try:
        yield mine.run
    finally:
        OPENED.remove(mine.run)


class AdoptingLog(JournalLog):
    """A journal that goes into the run that the user has open, and leaves that open."""

    users = False

    def begin(self):
        self.users = bool(OPENED)
        if not OPENED:
            super().begin()
            return
        self.run = OPENED[-1]
        self.reopen()

    def go_on(self, run, size):
        if OPENED:
            self.begin()
            return
        self.users = False
        super().go_on(run, size)

    def end(self, status):
        super().end("running" if self.users else status)


class JournalSuite(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {
        *("state", "resume", "rewinds", "status", "parameters", "redacts", "text", "non_finite"),
    }
    log = JournalLog

    def make(self, output_dir):
        return self.log(output_dir / "runs")

    def read(self, output_dir):
        return reading.read_journals(output_dir / "runs")


class DatabaseLogSuite(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state", "resume", "rewinds", "status", "parameters", "redacts", "non_finite"}
    log = DatabaseLog

    def make(self, output_dir):
        return self.log(output_dir / "runs.db")

    def read(self, output_dir):
        return reading.read_database(output_dir / "runs.db")


class FilesLogSuite(JournalSuite):
    __test__ = False
    capabilities = {*JournalSuite.capabilities, "files"}
    log = FilesLog

    def read(self, output_dir):
        runs = super().read(output_dir)
        for run in runs:
            files = output_dir / "runs" / "files" / run.id
            found = (path for path in files.rglob("*") if path.is_file())
            run.files = frozenset(path.relative_to(files).as_posix() for path in found)
        return runs


class AdoptingLogSuite(JournalSuite):
    __test__ = False
    capabilities = {*JournalSuite.capabilities, "adopts"} - {"rewinds"}
    log = AdoptingLog

    def users_run(self, output_dir):
        return opened_journal(output_dir / "runs")
