# ruff: noqa: RUF012
"""Trackers from scratch that are wrong in one way each, with stores of their own."""

import csv
import json
import logging
import queue
import threading
import urllib.request
import uuid
from pathlib import Path

from second_scratch_1 import InFile, RunFile, read_events
from second_specimens import faulty
from second_store import SERVERS, Server, bring_back, server_for

from callback_contract import RecordedRun, TrackerContract

logger = logging.getLogger(__name__)


class CsvLog:
    """A table of a training: a row for each log, a file for each run."""

    on_error = "isolate"

    def __init__(self, folder):
        self.folder = Path(folder)
        self.file = None
        self.columns = None

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self._new_file()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        if self.file is None:
            self._new_file()
        row = {"step": state.global_step, **logs}
        with self.file.open("a", newline="") as file:
            if self.columns is None:
                self.columns = list(row)
                csv.writer(file).writerow(self.columns)
            csv.DictWriter(file, self.columns, restval="", extrasaction="ignore").writerow(row)

    def _new_file(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self.folder.iterdir()))
        self.file = self.folder / f"{number:04d}-{uuid.uuid4().hex[:8]}.csv"
        self.file.touch()
        self.columns = None


@faulty(
    "what the first log does not have gets no column, and is lost",
    source="keras-team/keras#4443",
)
class ColumnsOfTheFirstLog(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {"non_finite"}

    def make(self, output_dir):
        return CsvLog(output_dir / "tables")

    def stored_name(self, name):
        return name

    def read(self, output_dir):
        runs = []
        for file in sorted((output_dir / "tables").glob("*.csv")):
            run = RecordedRun(file.stem, {}, {})
            with file.open(newline="") as lines:
                for row in csv.DictReader(lines):
                    step = int(row.pop("step"))
                    for name, value in row.items():
                        if is_number(value):
                            run.points.setdefault(name, []).append((step, float(value)))
            runs.append(run)
        return runs


def is_number(text):
    """Return whether a cell of a table holds a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


class Batched(RunFile):
    """Writes by a thread, now and then, so that the training does not wait for the disk."""

    every = 0.3

    def __init__(self, path):
        super().__init__(path)
        self.queue = queue.SimpleQueue()
        self.over = threading.Event()
        self.thread = None

    def __getstate__(self):
        return {"path": self.path}

    def __setstate__(self, state):
        self.__init__(**state)

    def on_train_begin(self, args, state, control, **kwargs):
        self._stop()
        super().on_train_begin(args, state, control, **kwargs)
        if self.is_open:
            self.over.clear()
            self.thread = threading.Thread(target=self._write_now_and_then, daemon=True)
            self.thread.start()

    def on_save(self, args, state, control, **kwargs):
        self._flush()

    def on_train_end(self, args, state, control, **kwargs):
        self._stop()
        super().on_train_end(args, state, control, **kwargs)

    def write(self, event, content=None):
        if event == "points" and self.thread is not None:
            self.queue.put((event, content))
        else:
            super().write(event, content)

    def _stop(self):
        if self.thread is not None:
            self.over.set()
            self.thread.join()
            self.thread = None

    def _write_now_and_then(self):
        while not self.over.wait(self.every):
            self._flush()

    def _flush(self):
        while True:
            try:
                event, content = self.queue.get_nowait()
            except queue.Empty:
                return
            RunFile.write(self, event, content)


@faulty(
    "the thread that writes ends without what was logged last",
    source="allenai/open-instruct#1841",
)
class LosesTheLastBatch(InFile):
    __test__ = False
    callback = Batched


class PostRuns(RunFile):
    """Posts events to a server, and keeps in the output directory what that did not take."""

    timeout = 5.0

    def __init__(self, url, spool):
        super().__init__(spool)
        self.url = url
        self.is_away = False

    def on_train_begin(self, args, state, control, **kwargs):
        self.is_away = False
        super().on_train_begin(args, state, control, **kwargs)

    def write(self, event, content=None):
        if not self.is_away:
            try:
                self.post(event, content)
                return
            except OSError as error:
                self.is_away = True
                logger.warning(
                    "%s is away, so the rest is kept in %s: %r", self.url, self.path, error
                )
        super().write(event, content)

    def post(self, event, content):
        send(self.url, json.dumps([self.run, event, content], default=str), self.timeout)


def send(url, line, timeout=None):
    """Send an event, which is a line of JSON, to a server."""
    headers = {"Authorization": f"Bearer {Server.key}"}
    request = urllib.request.Request(url, data=line.encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=timeout):
        pass


def resend(url, spool):
    """Send what a training has kept."""
    if spool.exists():
        for line in spool.read_text().splitlines():
            send(url, line, timeout=5.0)
        spool.unlink()


class OnServer(InFile):
    """What the suites have in common whose store is a server."""

    __test__ = False
    capabilities = InFile.capabilities | {"unreachable"}
    callback = PostRuns
    mode = "broken"

    def make(self, output_dir):
        return self.callback(server_for(output_dir).url, output_dir / "unsent.jsonl")

    def make_unreachable(self, output_dir):
        server = server_for(output_dir, mode=self.mode)
        return self.callback(server.url, output_dir / "unsent.jsonl")

    def deliver_later(self, output_dir):
        bring_back(output_dir)
        resend(SERVERS[output_dir].url, output_dir / "unsent.jsonl")

    def read(self, output_dir):
        return read_events(output_dir / "server" / "events.jsonl")


class PostsItsEnd(PostRuns):
    """Tells the server at last how it went, whatever has been."""

    on_error = "raise"

    def on_train_end(self, args, state, control, **kwargs):
        if self.is_open:
            self.is_open = False
            self.post("close", self.status)


@faulty(
    "the last call of all is not guarded, and fails the training where the server is away",
    source="verl-project/verl#4904",
)
class FailsAtTheEnd(OnServer):
    __test__ = False
    callback = PostsItsEnd


class Patient(PostRuns):
    """Leaves it to the system when to give up."""

    timeout = None


@faulty("waits without end for a server that takes a call and does not answer")
class WaitsForever(OnServer):
    __test__ = False
    callback = Patient
    mode = "silent"
