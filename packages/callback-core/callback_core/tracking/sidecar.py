"""A process of its own that delivers, which can be killed, and which outlives the training."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery import Delivery, ThreadDelivery
from callback_core.tracking.past import last_records
from callback_core.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

MOST_RESTARTS: Final = 3
"""A process whose tracker hangs is begun anew so often."""

LONGEST_PAUSE: Final = 5.0
"""Seconds between two attempts at a tracker that keeps failing, at most; nobody is kept by them."""

UPLOAD_LIMIT: Final = 3600.0
"""Seconds that an upload may take before its process is begun anew."""


def check_made_elsewhere(tracker: Tracker) -> None:
    """Refuse a tracker that cannot be made in another process.

    Raises:
        ValueError: It is bound to this process, or its class cannot be imported.
    """
    kind = type(tracker)
    if tracker.settings() is None:
        raise ValueError(
            f"{kind.__name__} is bound to this process by what it was given, so that no other can "
            "deliver to it. Choose another delivery than 'process'."
        )
    if kind.__module__ == "__main__" or "<" in kind.__qualname__:
        raise ValueError(
            f"{kind.__name__} cannot be imported by another process. Put the class at the top of a "
            "module, or choose another delivery than 'process'."
        )


def made_elsewhere(made_by: str, settings: dict[str, Any] | None) -> Tracker:
    """Return the tracker that another process has noted in its file.

    Raises:
        ValueError: It was bound to that process, or its class is not here.
    """
    if settings is None:
        raise ValueError(f"{made_by} was bound to its process and cannot be made again")
    module, _, name = made_by.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{made_by} is not to be found here: {error}") from error
    tracker: Tracker = found(**settings)
    return tracker


class ProcessDelivery(Delivery):
    """Runs a consumer in a process of its own."""

    def __init__(self, consumer: Consumer, open_limit: float) -> None:
        super().__init__(consumer, open_limit)
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start the process. It reads which tracker to make from the tracker's file."""
        consumer = self.consumer
        command = [sys.executable, "-m", "callback_core.tracking.replay", "--follow"]
        command += [str(os.getpid()), "--call-limit", str(self.open_limit)]
        command += ["--run", consumer.folder.run, "--tracker", consumer.name]
        path = os.pathsep.join(map(os.path.abspath, sys.path))  # "" is the working directory
        environment = {**os.environ, "PYTHONPATH": path}
        with consumer.folder.log_of(consumer.name).open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(consumer.folder.output_dir)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is for the training
            )

    def poke(self) -> None:
        """Nothing: the process looks by itself."""

    def hurry(self) -> None:
        """Nothing: the process looks by itself."""

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
            self.failure = f"its process did not come to an end, see {log}"
            process.kill()
            process.wait()
        consumer.reload()
        consumer.done = process.returncode == 0
        if not consumer.done and self.failure is None:
            self.failure = f"its process ended with {process.returncode}, see {log}"


def _has_ended(journal: Path) -> bool:
    """Return whether the training has said that it ends."""
    _, last = last_records(journal)
    return last is not None and last.kind == "end"


def follow(consumer: Consumer, training: int, call_limit: float, restarts: int) -> int:
    """Deliver until the training has ended, in a process of its own, and return its exit code.

    Where the training dies without saying so, what is left is delivered, and the run is closed as
    failed. Where a call of the tracker hangs, this process is begun anew in its place.
    """
    delivery = ThreadDelivery(consumer, call_limit, longest_pause=LONGEST_PAUSE)
    delivery.begin()
    died, came_on, seen = False, monotonic(), (0, 0)
    while not consumer.done:
        sleep(consumer.tracker.limits.deliver_every)
        if not died and os.getppid() != training:
            died = True
            consumer.training_ended("failed")
        now = (consumer.delivered, consumer.progress.offset)
        if now != seen or not died:
            came_on, seen = monotonic(), now
        doing = consumer.doing
        limit = UPLOAD_LIMIT if doing is not None and doing[0] == "log_files" else call_limit
        if doing is not None and monotonic() - doing[1] > limit:
            logger.error("%s has not come back for %.0f s.", doing[0], monotonic() - doing[1])
            if restarts >= MOST_RESTARTS:
                return 1
            consumer.abandon()
            arguments = [part for part in sys.argv[1:] if not part.startswith("--restarts=")]
            module = "callback_core.tracking.replay"
            sys.stderr.flush()
            os.execv(
                sys.executable,
                [sys.executable, "-m", module, *arguments, f"--restarts={restarts + 1}"],
            )
        in_vain = delivery.hopeless and _has_ended(consumer.folder.journal)
        if in_vain or monotonic() - came_on > MOST_RESTARTS * limit:
            return 1
    return 0
