"""A tracker without `callback_core.tracking` that posts to a service what it has written to a file.

It is correct as it stands; `scratch_correct_services` enters it as such.
"""

import json
import logging
import os
import threading
import urllib.request
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from callback_contract import TrackerContract
from callback_core import TrainerCallback
from zoo import reading, service
from zoo.runlogs import plain, redacted, tracked

logger = logging.getLogger(__name__)


class SpoolLog(TrainerCallback):
    """Posts a training to a service, by a thread, from a file of what is to be posted.

    Each log has a number, by which the service knows one that it is sent again, also where a
    resumed training repeats it. What the service has not got when `flush_limit` is over stays in the file; `deliver` posts it.
    """

    on_error = "isolate"
    pause = 0.5

    def __init__(self, url, key=None, flush_limit=30.0):
        self.url, self.key, self.flush_limit = url, key, flush_limit
        self.run = self.spool = self.thread = None
        self.lines = self.logs = 0
        self.status = "finished"
        self.resumed = None

    def state_dict(self):
        return {"run": self.run, "lines": self.lines, "logs": self.logs}

    def load_state_dict(self, state):
        self.resumed = dict(state)

    def on_train_begin(self, args, state, control, **kwargs):
        resumed, self.resumed = self.resumed, None
        if not state.is_world_process_zero:
            return
        if self.thread is not None:
            self.end("failed")
        self.status = "finished"
        if state.global_step > 0 and resumed is not None and resumed["run"] is not None:
            self.run, self.lines = resumed["run"], resumed["lines"]
            self.logs = resumed["logs"]
            self.spool = Spool(args.output_dir, self.run)
            self.spool.cut(self.lines)
        else:
            self.begin(args)
        self.start()
        self.add(status="running", parameters=redacted(args.to_dict()))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        outside = self.thread is None
        if outside:
            if self.run is None:
                self.begin(args)
            self.start()
        self.logs += 1
        points = []
        for name, value in logs.items():
            value = plain(value)
            if value is not None:
                value = redacted(value, name) if isinstance(value, str) else value
                points.append((tracked(name), value, state.global_step, self.logs))
        self.add(points=points)
        if outside:
            self.end(self.status)

    def on_exception(self, args, state, control, exception=None, **kwargs):
        self.status = "failed" if isinstance(exception, Exception) else "interrupted"

    def on_train_end(self, args, state, control, **kwargs):
        if self.thread is not None:
            self.end(self.status)

    def begin(self, args):
        self.run, self.lines, self.logs = uuid.uuid4().hex, 0, 0
        self.spool = Spool(args.output_dir, self.run)

    def start(self):
        self.ended, self.stopped = threading.Event(), threading.Event()
        self.added = threading.Event()
        self.thread = threading.Thread(target=self.send, name="spool", daemon=True)
        self.thread.start()

    def add(self, **event):
        self.spool.add(json.dumps({"run": self.run, **event}, default=str))
        self.lines += 1
        self.added.set()

    def end(self, status):
        self.add(status=status)
        self.ended.set()
        self.added.set()
        self.thread.join(self.flush_limit)
        self.stopped.set()
        self.thread.join(1)
        if self.spool.pending():
            logger.warning("%d lines are pending in %s", self.spool.pending(), self.spool.path)
        self.thread = None

    def send(self):
        """Post what there is, until there is no more and the training has ended."""
        while not self.stopped.is_set():
            self.added.wait()
            self.added.clear()
            ended = self.ended.is_set()
            while self.spool.pending() and not self.stopped.is_set():
                try:
                    self.spool.post(self.post)
                except OSError:
                    self.stopped.wait(self.pause)
            if ended:
                return

    def post(self, line):
        post(self.url, line, self.key)


class Spool:
    """The file of a run in an output directory, and how much of it was posted."""

    def __init__(self, output_dir, run):
        directory = Path(output_dir) / "spool"
        directory.mkdir(parents=True, exist_ok=True)
        self.path, self.sent = directory / f"{run}.jsonl", directory / f"{run}.sent"

    def add(self, line):
        with self.path.open("a") as file:
            file.write(line + "\n")

    def read(self):
        text = self.path.read_text() if self.path.exists() else ""
        return text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]

    def cut(self, lines):
        """Forget what follows on so many lines."""
        kept = self.read()[:lines]
        self.path.write_text("".join(f"{line}\n" for line in kept))
        if self.posted() > len(kept):
            self.note(len(kept))

    def posted(self):
        return int(self.sent.read_text()) if self.sent.exists() else 0

    def note(self, posted):
        beside = self.sent.with_suffix(".new")
        beside.write_text(str(posted))
        os.replace(beside, self.sent)

    def pending(self):
        return len(self.read()) - self.posted()

    def post(self, post):
        """Post all that is left."""
        for number, line in enumerate(self.read()[self.posted() :], self.posted() + 1):
            post(line)
            self.note(number)


def post(url, line, key=None):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(url, line.encode(), headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        answer.read()


def deliver(output_dir, url, key=None):
    """Post what is pending in an output directory."""
    for path in sorted((Path(output_dir) / "spool").glob("*.jsonl")):
        Spool(output_dir, path.stem).post(lambda line: post(url, line, key))


class SpoolSuite(TrackerContract):
    __test__ = False
    contract = (2, 0)
    capabilities = {
        *("state", "resume", "status", "parameters", "redacts", "unreachable"),
        *("text", "non_finite"),
    }
    log = SpoolLog

    def make(self, output_dir):
        return self.log(service.url(output_dir))

    def make_unreachable(self, output_dir):
        with service.Service() as gone:
            url = gone.url + service.url(output_dir).removeprefix(service.url())
        (output_dir / "address").write_text(url)
        return self.log(url, flush_limit=self.flush_limit)

    def deliver_later(self, output_dir):
        url = (output_dir / "address").read_text()
        with service.Service(urlsplit(url).port):
            self.deliver(output_dir, url)

    def deliver(self, output_dir, url):
        deliver(output_dir, url)

    def read(self, output_dir):
        return reading.runs_of_events(service.received(output_dir))
