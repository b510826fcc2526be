"""`ProcessDelivery`: delivers in a process of its own.

That process can be killed when the tracker hangs, and outlives a training that is killed.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Final

from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery.base import Delivery
from callback_core.tracking.delivery.thread import ThreadDelivery
from callback_core.tracking.journal import has_ended
from callback_core.tracking.observed_process import COMMAND_LINE

logger = logging.getLogger(__name__)

MOST_RESTARTS: Final = 3
"""How many times a process whose tracker hangs is started again, at most."""

LONGEST_PAUSE: Final = 5.0
"""The most seconds between two attempts at a tracker that keeps failing. Nobody waits for them."""

UPLOAD_LIMIT: Final = 3600.0
"""Seconds that an upload may take before its process is started again."""

_COMMAND: Final = "callback_core.tracking.replay"


class ProcessDelivery(Delivery):
    """Runs a consumer in a process of its own."""

    def __init__(self, consumer: Consumer, open_limit: float) -> None:
        super().__init__(consumer, open_limit)
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start the process. It makes the tracker from what `write_identity` wrote."""
        consumer = self.consumer
        command = [sys.executable, "-m", _COMMAND, "--follow"]
        command += [str(os.getpid()), "--call-limit", str(self.open_limit)]
        command += ["--run", consumer.folder.run, "--tracker", consumer.name]
        path = os.pathsep.join(map(os.path.abspath, sys.path))  # "" is the working directory
        environment = {**os.environ, "PYTHONPATH": path, COMMAND_LINE: json.dumps(sys.argv)}
        with consumer.folder.log_of(consumer.name).open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(consumer.folder.output_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is for the training
            )

    def notify(self) -> None:
        """Nothing: the process finds new records by itself."""

    def hurry(self) -> None:
        """Nothing: the process finds the end of the training by itself."""

    def wait(self, deadline: float) -> None:
        """Wait for the process, and kill it at the deadline."""
        process, consumer = self._process, self.consumer
        log = consumer.folder.log_of(consumer.name)
        if process is None:
            self.failure = "its process could not be started"
            return
        try:
            process.wait(max(0.0, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            self.failure = f"its process did not end, see {log}"
            process.kill()
            process.wait()
        consumer.run.reload()
        self.announce()
        if process.returncode == 0:
            consumer.delivered_elsewhere()
        elif self.failure is None:
            ended = f"its process ended with {process.returncode}, see {log}"
            self.failure = consumer.run.progress.failure or ended
        self.refused = consumer.run.progress.refused


def follow(
    consumer: Consumer, training: int, call_limit: float, restarts: int, arguments: Sequence[str]
) -> int:
    """Deliver until the training has ended, and return the exit code of this process.

    If the training dies, this delivers the rest and closes the run as failed. If a call of the
    tracker hangs, this process executes itself again.

    Args:
        consumer: What delivers.
        training: The process id of the training.
        call_limit: Seconds that a call of the tracker may take; an upload has `UPLOAD_LIMIT`.
        restarts: How many times this process was started again.
        arguments: The arguments with which this process was started.
    """
    delivery = ThreadDelivery(consumer, call_limit, longest_pause=LONGEST_PAUSE)
    consumer.run.progress.failure, consumer.run.progress.refused = None, False
    delivery.begin()
    died, last_progress, seen = False, monotonic(), (0, 0)
    while not consumer.done:
        sleep(consumer.tracker.limits.deliver_every)
        if not died and os.getppid() != training:
            died = True
            consumer.training_ended("failed")
        now = (consumer.delivered, consumer.run.progress.offset)
        if now != seen or not died:
            last_progress, seen = monotonic(), now
        method, seconds = consumer.run.calls.running() or ("", 0.0)
        limit = UPLOAD_LIMIT if method == "log_files" else call_limit
        if method and seconds > limit:
            logger.error("%s has not returned for %.0f s.", method, seconds)
            if restarts >= MOST_RESTARTS:
                consumer.run.save_failure(f"{method} has not returned for {seconds:.0f} s")
                return 1
            consumer.abandon()
            again = [part for part in arguments if not part.startswith("--restarts=")]
            again.append(f"--restarts={restarts + 1}")
            os.environ[COMMAND_LINE] = json.dumps(sys.argv)
            sys.stderr.flush()
            os.execv(sys.executable, [sys.executable, "-m", _COMMAND, *again])
        in_vain = delivery.hopeless and has_ended(consumer.folder.journal)
        if in_vain or delivery.refused or monotonic() - last_progress > MOST_RESTARTS * limit:
            consumer.run.save_failure(delivery.failure, delivery.refused)
            return 1
    return 0
