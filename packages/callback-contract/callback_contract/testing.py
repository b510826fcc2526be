"""What tests of trackers need beside the rules: processes, waiting, and a server to stand in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from callback_contract._stand_in import Answer, Request, StandIn, unused_port
from callback_contract._watching import log_messages

__all__ = [
    "Answer",
    "Request",
    "StandIn",
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


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which another Python finds what this one finds, from anywhere."""
    paths = [os.path.abspath(entry) for entry in sys.path if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def run_python(
    *arguments: str,
    timeout: float = 300.0,
    cwd: Path | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, and return how it ended and what it printed.

    Args:
        arguments: Such as `-c` and a program.
        timeout: Seconds after which it is killed, which raises `subprocess.TimeoutExpired`.
        cwd: The directory that it runs in.
        variables: Environment variables that it has besides those of this process.
    """
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
    )


def replay(output_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command that delivers what is pending of the trainings in a directory."""
    return run_python("-m", "callback_core.tracking.replay", str(output_dir), *arguments)


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
def missing(package: str) -> Iterator[None]:
    """Let a package, such as a tracker's SDK, be one that is not installed."""
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if name == package or name.startswith(f"{package}.")
    }
    for name in hidden:
        del sys.modules[name]
    finders = list(sys.meta_path)
    sys.meta_path[:] = [_Without(finder, package) for finder in finders]
    try:
        yield
    finally:
        sys.meta_path[:] = finders
        sys.modules.update(hidden)


@contextmanager
def not_configured(why: str, *variables: str, seconds: float = 120.0) -> Iterator[list[str]]:
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


class _Without:
    """A finder of modules that does not find those of a package."""

    def __init__(self, finder: Any, package: str) -> None:
        self._finder, self._package = finder, package

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return nothing for the package and its modules, as where it is not installed."""
        if name.partition(".")[0] == self._package:
            return None
        spec: ModuleSpec | None = self._finder.find_spec(name, path, target)
        return spec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)
