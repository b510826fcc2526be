# ruff: noqa: RUF012
"""Trackers from scratch that are right, in varied styles."""

import contextlib
import csv
import functools
import json
import logging
import queue
import sqlite3
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from second_scratch_1 import InFile, read_events
from second_scratch_2 import OnServer, PostRuns
from second_specimens import correct
from second_store import SCHEMA, read_sqlite

from callback_contract import RecordedRun, TrackerContract
from callback_core import ExportableState, TrainerCallback

logger = logging.getLogger(__name__)


def guarded(event):
    """Let an event cost the training nothing: its errors go to the callback's `on_error`."""

    @functools.wraps(event)
    def method(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            try:
                event(self, args, state, control, **kwargs)
            except Exception as error:
                self.on_error(error)
        return control

    return method


class EventLog(TrainerCallback, ExportableState):
    """A file of events as one writes it for transformers; `on_error` is a method of its own."""

    def __init__(self, path):
        self.path = str(path)
        self.run = None
        self.restored_run = None
        self.closed = True
        self.outcome = "finished"

    def on_error(self, error):
        logger.warning("%s could not be written to: %r", self.path, error)

    def state(self):
        return {"args": {"path": self.path}, "attributes": {"restored_run": self.run}}

    @guarded
    def on_train_begin(self, args, state, control, **kwargs):
        if not self.closed:
            self._write("close", "failed")
        resumes = state.global_step > 0 and self.restored_run is not None
        self.run = self.restored_run if resumes else uuid.uuid4().hex
        self.restored_run, self.outcome, self.closed = None, "finished", False
        self._write("open")
        if resumes:
            self._write("rewind", state.global_step)
        self._write("parameters", json.loads(args.to_json_string()))

    @guarded
    def on_log(self, args, state, control, logs=None, **kwargs):
        numbers = {k: float(v) for k, v in (logs or {}).items() if isinstance(v, int | float)}
        if self.run is None:
            self.run = uuid.uuid4().hex
            self._write("open")
            self._write("points", [state.global_step, numbers])
            self._write("close", "finished")
            self.run = None
        else:
            self._write("points", [state.global_step, numbers])

    @guarded
    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.outcome = "failed" if isinstance(exception, Exception) else "interrupted"

    @guarded
    def on_train_end(self, args, state, control, **kwargs):
        if not self.closed:
            self.closed = True
            self._write("close", self.outcome)

    def _write(self, event, content=None):
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a") as file:
            file.write(json.dumps([self.run, event, content]) + "\n")


@correct("a file, by an author who knows only transformers; on_error is a method of its own")
class GoodEventLog(InFile):
    __test__ = False
    callback = EventLog

    def read(self, output_dir):
        return read_events(output_dir / "events.jsonl")


class AsyncDatabase(TrainerCallback):
    """Writes to a database by a thread that lives as long as a training."""

    on_error = "isolate"

    def __init__(self, path):
        self.path = Path(path)
        self.run = None
        self._resumed = None
        self._status = None
        self._queue = None
        self._thread = None

    def __getstate__(self):
        return {**self.__dict__, "_queue": None, "_thread": None}

    def state_dict(self):
        return {"run": self.run}

    def load_state_dict(self, state):
        self._resumed = state["run"]

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        if self._thread is not None:  # nobody has said that the training before is over
            self._end("failed")
        resumed, self._resumed = self._resumed, None
        self._status = "finished"
        self._start()
        if state.global_step > 0 and resumed is not None:
            self.run = resumed
            self._put("delete from points where run = ? and step > ?", resumed, state.global_step)
        else:
            self.run = uuid.uuid4().hex
        self._say("running")
        for name, value in args.to_dict().items():
            self._put(
                "insert or replace into parameters values(?, ?, ?)", self.run, name, str(value)
            )

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        run, outside = self.run, self._thread is None
        if outside:
            self._start()
            if run is None:
                run = uuid.uuid4().hex
                self._put("insert into runs(id, status) values(?, 'finished')", run)
        for name, value in logs.items():
            if isinstance(value, int | float):
                insert = "insert into points values(?, ?, ?, ?, ?)"
                self._put(insert, run, name, state.global_step, repr(float(value)), time.time())
        if outside:
            self._stop()

    def on_save(self, args, state, control, **kwargs):
        if self._queue is not None:
            self._queue.join()  # a resumed training relies on what was logged before

    def on_exception(self, args, state, control, exception=None, **kwargs):
        self._status = "failed" if isinstance(exception, Exception) else "interrupted"

    def on_train_end(self, args, state, control, **kwargs):
        if self._thread is not None:
            self._end(self._status)

    def _end(self, status):
        self._say(status)
        self._stop()

    def _say(self, status):
        self._put(
            "insert into runs(id, status) values(?, ?)"
            " on conflict(id) do update set status = excluded.status",
            self.run,
            status,
        )

    def _put(self, statement, *values):
        self._queue.put((statement, values))

    def _start(self):
        self._queue = queue.Queue()
        self._thread = threading.Thread(target=self._work, args=(self._queue,), daemon=True)
        self._thread.start()

    def _stop(self):
        self._queue.put(None)
        self._thread.join()
        self._queue = self._thread = None

    def _work(self, todo):
        database = None
        while (task := todo.get()) is not None:
            try:
                if database is None:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    database = sqlite3.connect(self.path, isolation_level=None)
                    database.executescript("pragma journal_mode = wal;" + SCHEMA)
                database.execute(*task)
            except (OSError, sqlite3.Error) as error:
                logger.warning("%s does not take what is logged: %r", self.path, error)
            finally:
                todo.task_done()
        if database is not None:
            database.close()


@correct("a database that a thread writes to, which is waited for at checkpoints and at the end")
class GoodAsyncDatabase(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"state", "resume", "rewinds", "status", "parameters", "non_finite"}

    def make(self, output_dir):
        return AsyncDatabase(output_dir / "runs.db")

    def stored_name(self, name):
        return name

    def read(self, output_dir):
        return read_sqlite(output_dir / "runs.db")


@dataclass(slots=True, eq=False)
class LongTable:
    """A folder of tables, one a training, of one value a row. It extends no class."""

    root: Path
    on_error: str = "isolate"
    _table: Path | None = field(default=None, repr=False)

    def on_train_begin(self, args, state, control, **kwargs):
        self._table = self._new_table() if state.is_world_process_zero else None

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero:
            return
        table = self._table or self._new_table()
        with table.open("a", newline="") as file:
            csv.writer(file).writerows(
                (state.global_step, name, repr(float(value)))
                for name, value in (logs or {}).items()
                if isinstance(value, int | float)
            )

    def _new_table(self):
        self.root.mkdir(parents=True, exist_ok=True)
        number = len(list(self.root.iterdir()))
        while True:
            table = self.root / f"{number:05d}.csv"
            with contextlib.suppress(FileExistsError):
                table.touch(exist_ok=False)
                return table
            number += 1


@correct("a table for each training, with neither state nor resume, in a dataclass with slots")
class GoodLongTable(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"non_finite"}

    def make(self, output_dir):
        return LongTable(output_dir / "tables")

    def stored_name(self, name):
        return name

    def read(self, output_dir):
        runs = []
        for table in sorted((output_dir / "tables").glob("*.csv")):
            run = RecordedRun(table.stem, {}, {})
            with table.open(newline="") as rows:
                for step, name, value in csv.reader(rows):
                    run.points.setdefault(name, []).append((int(step), float(value)))
            runs.append(run)
        return runs


class QuickPosts(PostRuns):
    """Waits but shortly for the server."""

    timeout = 1.0


@correct("a server that may be silent: a short timeout, and a file for what it did not take")
class GoodSpool(OnServer):
    __test__ = False
    callback = QuickPosts
    mode = "silent"
