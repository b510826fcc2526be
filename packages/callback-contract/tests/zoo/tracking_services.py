"""Trackers on `callback_core.tracking` that are wrong with services, the process and settings."""

import json
import logging
import os
import signal
import tempfile
import threading
import time
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from callback_contract import Setting
from callback_core.tracking import Rejected, config
from zoo.specimens import faulty
from zoo.stores import (
    LinesSuite,
    LinesTracker,
    PostSuite,
    PostTracker,
    StoreCallback,
)

logger = logging.getLogger(__name__)


class LazyTracker(PostTracker):
    """Leaves the service alone until there is something to send."""

    def open(self, opening):
        self.run = opening.run_id or uuid.uuid4().hex
        self.begins = {"name": opening.name, "status": "running"}
        return self.run

    def post(self, **event):
        super().post(**{**self.begins, **event})
        self.begins = {}


class GivesUpTracker(LazyTracker):
    def post(self, **event):
        try:
            super().post(**event)
        except OSError as error:
            raise Rejected(f"{self.url} does not take it: {error}") from error


@faulty("A service that is away just now counts as one that rejects the points for ever.")
class RejectedForAnOutage(PostSuite):
    __test__ = False
    tracker = GivesUpTracker


class DroppingTracker(PostTracker):
    def post(self, **event):
        try:
            super().post(**event)
        except OSError as error:
            logger.warning("The service is away, so %s is lost: %s", ", ".join(event), error)


@faulty("Errors of the connection are logged and dropped, so that points count as delivered.")
class SwallowedByTheTracker(PostSuite):
    __test__ = False
    tracker = DroppingTracker


class BufferingTracker(LinesTracker):
    """Writes in large pieces, for a file system that is far away."""

    def open(self, opening):
        self.buffer = []
        return super().open(opening)

    def log_metrics(self, points):
        self.buffer += [(p.name, p.value, p.step, p.time) for p in points]
        if len(self.buffer) >= 500:
            self.write_out()

    def close(self, status):
        self.write_out()
        super().close(status)

    def write_out(self):
        if self.buffer:
            self.write(points=self.buffer)
            self.buffer = []


@faulty("Points are said to be taken while they are in a buffer, which a kill loses.")
class BufferedUntilTheEnd(LinesSuite):
    __test__ = False
    tracker = BufferingTracker


class SenderTracker(LazyTracker):
    """Sends by a thread of its own, in order, so that a slow service holds nobody up."""

    def open(self, opening):
        self.sender = ThreadPoolExecutor(max_workers=1)
        return super().open(opening)

    def post(self, **event):
        self.sender.submit(super().post, **event)

    def close(self, status):
        super().close(status)
        self.sender.shutdown(wait=True)


@faulty("What a thread of the tracker fails to send is lost: nobody asks how it went.")
class SentInTheBackground(PostSuite):
    __test__ = False
    tracker = SenderTracker


class DefaultSettingsTracker(LinesTracker):
    def __init__(self, path=None):
        default = Path(tempfile.gettempdir()) / "zoo_runs.jsonl"
        super().__init__(path or os.environ.get("ZOO_LINES") or default)

    def settings(self):
        return {}  # whoever delivers later reads the same variables


@faulty("`settings` leaves the path out, so that what is delivered later goes somewhere else.")
class SettingsWithoutThePath(LinesSuite):
    __test__ = False
    tracker = DefaultSettingsTracker


class KeyInSettingsTracker(PostTracker):
    def settings(self):
        return {"url": self.url, "key": self.key}


KEY = "zk-4f1c9d27b6e84a53"


@faulty("`settings` has the key in it, and is written to a file beside the checkpoints.")
class KeyInTheSettings(PostSuite):
    __test__ = False
    secrets = [KEY]

    def tracker(self, url):
        return KeyInSettingsTracker(url, KEY)


class EagerTracker(LinesTracker):
    def __init__(self, path):
        super().__init__(path)
        with open(self.path, "a"):
            """It can be written to: better to know before the training than after it."""


@faulty("The constructor opens the store, and where that is away there is no training either.")
class StoreInTheConstructor(LinesSuite):
    __test__ = False
    tracker = EagerTracker


class GreetingTracker(PostTracker):
    def begin(self):
        """Wake the service up, which takes a while to start."""
        for _ in range(4):
            try:
                with urllib.request.urlopen(self.url, timeout=5):
                    return
            except OSError:
                time.sleep(1)


@faulty("`begin`, which the training waits for, talks to the service, and tries for seconds.")
class TalksWhenItBegins(PostSuite):
    __test__ = False
    tracker = GreetingTracker


class QuietTracker(LinesTracker):
    def begin(self):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads and forks do not go together


@faulty("An environment variable is set when training begins and stays set.")
class VariableStaysSet(LinesSuite):
    __test__ = False
    tracker = QuietTracker


class TermTracker(LinesTracker):
    """Lets a training that a scheduler ends be closed in the store."""

    def begin(self):
        if threading.current_thread() is threading.main_thread():
            self.before = signal.signal(signal.SIGTERM, self.terminated)

    def terminated(self, number, frame):
        raise SystemExit(143)


@faulty(
    "The handler of SIGTERM is the tracker's also after the training.",
    source="vllm-project/speculators#1089",
)
class SignalHandlerStays(LinesSuite):
    __test__ = False
    tracker = TermTracker


class VariableFirstTracker(LinesTracker):
    def __init__(self, path=None, disabled=None):
        super().__init__(os.environ.get("ZOO_PATH") or path or "runs.jsonl")
        self.is_off = config.flag("disabled", disabled, "ZOO_OFF") or False

    @property
    def disabled(self):
        return self.is_off

    def settings(self):
        return {"path": self.path, "disabled": self.is_off}


@faulty("The environment variable wins over the argument that was given.")
class VariableBeatsArgument(LinesSuite):
    __test__ = False
    capabilities = {*LinesSuite.capabilities, "settings"}
    tracker = VariableFirstTracker
    settings = [
        Setting(
            "path",
            "ZOO_PATH",
            "runs.jsonl",
            examples=[("a.jsonl", "a.jsonl")],
            given=[("b.jsonl", "b.jsonl")],
        ),
        Setting.flag("disabled", "ZOO_OFF"),
    ]

    def make_with(self, output_dir, **arguments):
        return StoreCallback(VariableFirstTracker(**arguments))


class TruthyTracker(LinesTracker):
    def __init__(self, path, disabled=None):
        super().__init__(path)
        self.is_off = bool(os.environ.get("ZOO_OFF")) if disabled is None else disabled

    @property
    def disabled(self):
        return self.is_off

    def settings(self):
        return {"path": self.path, "disabled": self.is_off}


@faulty("A variable that says `false` switches the tracker off, since it is not empty.")
class FalseIsTrue(LinesSuite):
    __test__ = False
    capabilities = {*LinesSuite.capabilities, "settings"}
    tracker = TruthyTracker
    settings = [Setting.flag("disabled", "ZOO_OFF")]

    def make_with(self, output_dir, **arguments):
        return StoreCallback(TruthyTracker(output_dir / "runs.jsonl", **arguments))


class SendTimeTracker(PostTracker):
    def log_metrics(self, points):
        now = time.time()
        self.post(points=[(point.name, point.value, point.step, now) for point in points])


@faulty("A point has the time at which it is sent, so that one that is sent again is there twice.")
class TimeOfSending(PostSuite):
    __test__ = False
    tracker = SendTimeTracker


class LocalCopyTracker(PostTracker):
    """Leaves a copy of what it was configured with, for support."""

    def open(self, opening):
        run = super().open(opening)
        opening.folder.mkdir(parents=True, exist_ok=True)
        (opening.folder / "client.json").write_text(json.dumps(vars(self)))
        return run


@faulty("The tracker writes its key into the training's output directory.")
class KeyInAFile(PostSuite):
    __test__ = False
    secrets = [KEY]

    def tracker(self, url):
        return LocalCopyTracker(url, KEY)
