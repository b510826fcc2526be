"""Trackers without `callback_core.tracking` that are wrong with a service, secrets and settings."""

import json
import logging
import os
import time
import uuid

from callback_contract import Setting
from zoo.runlogs import JournalLog, JournalSuite
from zoo.specimens import faulty
from zoo.spool import SpoolLog, SpoolSuite, post

logger = logging.getLogger(__name__)

KEY = "zk-91d0c25ab7fe4e38"


class PromptLog(SpoolLog):
    """Keeps the service up to date: a log is there when the training goes on."""

    def add(self, **event):
        super().add(**event)
        until = time.monotonic() + 1.5
        while self.spool.pending() and time.monotonic() < until:
            time.sleep(0.02)


@faulty("Each log waits in the training's thread for the service, for seconds where it is away.")
class TrainingWaitsForTheService(SpoolSuite):
    __test__ = False
    log = PromptLog


class PatientLog(SpoolLog):
    def end(self, status):
        self.add(status=status)
        self.ended.set()
        self.added.set()
        while self.thread.is_alive():  # all of it must arrive
            self.thread.join(1)
        self.thread = None


@faulty(
    "The end of training waits for a service that is away without any limit.",
    source="wandb/wandb#5601",
)
class WaitsForEver(SpoolSuite):
    __test__ = False
    log = PatientLog


class DroppingLog(SpoolLog):
    def post(self, line):
        try:
            super().post(line)
        except OSError as error:
            logger.warning("%s does not answer: %s", self.url, error)


@faulty("What the service did not take counts as posted, and is never tried again.")
class CountsAsPosted(SpoolSuite):
    __test__ = False
    log = DroppingLog


class ServingLog(SpoolLog):
    def end(self, status):
        """Leave the thread for what is evaluated later."""
        self.add(status=status)
        until = time.monotonic() + self.flush_limit
        while self.spool.pending() and time.monotonic() < until:
            time.sleep(0.02)
        self.thread = None


@faulty("The thread that posts is left running when training has ended.")
class ThreadRunsOn(SpoolSuite):
    __test__ = False
    log = ServingLog


class FreshNumbersLog(SpoolLog):
    def add(self, **event):
        if "points" in event:
            mark = uuid.uuid4().hex
            event["points"] = [
                (name, value, step, mark) for name, value, step, _ in event["points"]
            ]
        super().add(**event)


@faulty("What a resumed training repeats has another identity, and is in the service twice.")
class RepeatedAsNew(SpoolSuite):
    __test__ = False
    log = FreshNumbersLog


class SelfContainedLog(SpoolLog):
    """Writes down how to reach the service, so that anybody can deliver later."""

    def begin(self, args):
        super().begin(args)
        config = {"url": self.url, "headers": {"Authorization": f"Bearer {self.key}"}}
        self.spool.path.with_suffix(".config").write_text(json.dumps(config))


@faulty("The key is written to a file in the output directory.")
class KeyBesideTheRun(SpoolSuite):
    __test__ = False
    secrets = [KEY]

    def log(self, url, **options):
        return SelfContainedLog(url, KEY, **options)


class GreetingLog(SpoolLog):
    def __init__(self, url, key=None, flush_limit=30.0):
        super().__init__(url, key, flush_limit)
        post(url, json.dumps({"run": "hello"}), key)


@faulty("The constructor talks to the service, and fails where that is away.")
class TalksInTheConstructor(SpoolSuite):
    __test__ = False
    log = GreetingLog

    def read(self, output_dir):
        return [run for run in super().read(output_dir) if run.id != "hello"]


class StrictLog(SpoolLog):
    """Says at the end what the service has not got."""

    on_error = "raise"

    def end(self, status):
        super().end(status)
        if self.spool.pending():
            raise ConnectionError(f"{self.url} has not got {self.spool.pending()} lines")


@faulty(
    "A service that is away is an error of the training.", source="huggingface/transformers#9210"
)
class TrainingFailsWithTheService(SpoolSuite):
    __test__ = False
    log = StrictLog


class TypoLog(JournalLog):
    MODES = {"all": None, "training": "train/", "evaluation": "eval/"}

    def __init__(self, directory, mode=None):
        super().__init__(directory)
        mode = mode or os.environ.get("ZOO_MODE") or "all"
        self.mode = mode if mode in self.MODES else "all"

    def write(self, **event):
        part = self.MODES[self.mode]
        if part is not None and "points" in event:
            event["points"] = [point for point in event["points"] if point[0].startswith(part)]
        super().write(**event)


@faulty("A value that a setting cannot have is taken for the default, without a word.")
class TypoIsTheDefault(JournalSuite):
    __test__ = False
    capabilities = {*JournalSuite.capabilities, "settings"}
    log = TypoLog
    settings = [
        Setting(
            "mode",
            "ZOO_MODE",
            "all",
            examples=[("training", "training")],
            given=[("evaluation", "evaluation")],
            wrong=["validation"],
            wrong_given=[3],
            choices=["all", "training", "evaluation"],
        )
    ]

    def make_with(self, output_dir, **arguments):
        return TypoLog(output_dir / "runs", **arguments)
