"""Helpers for tests of trackers: processes, waiting, and a stand-in server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callback_contract._forks import PreparedPython
from callback_contract._process import children, log_messages
from callback_contract._python import environment, missing, run_python
from callback_contract._stand_in import Answer, Request, StandIn, unused_port

__all__ = [
    "Answer",
    "PreparedPython",
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
    """Make the entries of `sys.path` absolute, so that they work from any directory."""
    sys.path[:] = [os.path.abspath(entry) for entry in sys.path]


def replay(output_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command that delivers the pending logs of the trainings in a directory."""
    patience = ("--patience", "500")  # importing an SDK may take a minute on a busy machine
    return run_python("-m", "callback_core.tracking.replay", str(output_dir), *patience, *arguments)


def wait_until(holds: Callable[[], Any], seconds: float = 300.0) -> None:
    """Wait until `holds` returns a true value.

    An `OSError` counts as not yet, because a server may still be starting.

    Raises:
        AssertionError: `holds` did not return a true value within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        cause: OSError | None = None
        try:
            if holds():
                return
        except OSError as error:
            cause = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"the condition did not hold within {seconds:g} s") from cause
        time.sleep(0.02)


@contextmanager
def not_configured(why: str, *variables: str, seconds: float = 300.0) -> Iterator[list[str]]:
    """Require that a training without these variables does not wait and reports why.

    Make the callback inside the block, with a `flush_limit` of more than `seconds`.

    Args:
        why: The message of the `NotConfigured` error that the training logs.
        variables: Environment variables that are unset in the block, such as a key.
        seconds: The time limit of the block.

    Yields:
        The log messages of the block. Append the output of another process to it.

    Raises:
        AssertionError: The block took longer than `seconds`, or did not log the error.
    """
    values = {name: os.environ[name] for name in variables}
    for name in values:
        del os.environ[name]
    begun = time.monotonic()
    try:
        with log_messages() as messages:
            yield messages
    finally:
        os.environ |= values
    took = time.monotonic() - begun
    if took >= seconds:
        raise AssertionError(f"the training took {took:.0f} s, but it must not wait")
    if not any(f"(NotConfigured: {why}" in message for message in messages):
        raise AssertionError(f"the training did not log 'NotConfigured: {why}', but {messages}")
