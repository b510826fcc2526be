"""What tests of trackers need beside the rules: processes, waiting, and a server to stand in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callback_contract._process import children, log_messages
from callback_contract._python import environment, missing, run_python
from callback_contract._stand_in import Answer, Request, StandIn, unused_port

__all__ = [
    "Answer",
    "Request",
    "StandIn",
    "children",
    "environment",
    "missing",
    "not_configured",
    "replay",
    "run_python",
    "unused_port",
    "use_absolute_paths",
    "wait_until",
]


def use_absolute_paths() -> None:
    """Make this process find modules from any directory, also those it knows by relative paths."""
    sys.path[:] = [os.path.abspath(entry) for entry in sys.path]


def replay(output_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command that delivers what is pending of the trainings in a directory."""
    patience = ("--patience", "500")  # a machine that is busy imports an SDK for a minute
    return run_python("-m", "callback_core.tracking.replay", str(output_dir), *patience, *arguments)


def wait_until(holds: Callable[[], Any], seconds: float = 300.0) -> None:
    """Wait until something holds. An `OSError`, of a server that is not up yet, means not yet.

    Raises:
        AssertionError: It did not within that many seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        why: OSError | None = None
        try:
            if holds():
                return
        except OSError as error:
            why = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"it did not happen within {seconds:g} seconds") from why
        time.sleep(0.02)


@contextmanager
def not_configured(why: str, *variables: str, seconds: float = 300.0) -> Iterator[list[str]]:
    """Let a training lack variables, such as a key: it is to wait for nobody, and to say why.

    Make its callback within the block, with a `flush_limit` of more than `seconds`.

    Args:
        why: What it is to say at its end, where the error is told that it has not been delivered.
        variables: Environment variables that are set, and are not there meanwhile.
        seconds: What it may take.

    Yields:
        What is logged meanwhile. What another process printed is to be added to it.

    Raises:
        AssertionError: It took longer, or did not say so.
    """
    kept = {name: os.environ[name] for name in variables}
    for name in kept:
        del os.environ[name]
    begun = time.monotonic()
    try:
        with log_messages() as said:
            yield said
    finally:
        os.environ |= kept
    took = time.monotonic() - begun
    if took >= seconds:
        raise AssertionError(f"it took {took:.0f} seconds, of which it is to wait none")
    if not any(f"points (NotConfigured: {why}" in message for message in said):
        raise AssertionError(f"at its end it did not say that {why!r}, but {said}")
