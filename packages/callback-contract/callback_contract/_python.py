"""Runs Python in another process, and hides a package in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any


def environment(**more: str) -> dict[str, str]:
    """Return environment variables with which Python finds this process's modules from anywhere."""
    paths = [os.path.abspath(entry) for entry in sys.path if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def run_python(
    *arguments: str,
    timeout: float = 540.0,
    cwd: Path | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, and return its exit code and its output.

    Args:
        arguments: The command line, such as `-c` and a program.
        timeout: Seconds after which the process is killed.
        cwd: The working directory.
        variables: Environment variables besides those of this process.

    Raises:
        subprocess.TimeoutExpired: The process took longer than `timeout`.
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


@contextmanager
def missing(package: str) -> Iterator[None]:
    """Make a package, such as a tracker's SDK, impossible to import in the block."""
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if name == package or name.startswith(f"{package}.")
    }
    for name in hidden:
        del sys.modules[name]
    finders = list(sys.meta_path)
    sys.meta_path[:] = [_HidingFinder(finder, package) for finder in finders]
    try:
        yield
    finally:
        sys.meta_path[:] = finders
        sys.modules.update(hidden)


class _HidingFinder:
    """Finds the modules that another finder finds, except those of one package."""

    def __init__(self, finder: Any, package: str) -> None:
        self._finder, self._package = finder, package

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return `None` for the modules of the package, as if it were not installed."""
        if name.partition(".")[0] == self._package:
            return None
        spec: ModuleSpec | None = self._finder.find_spec(name, path, target)
        return spec

    def __getattr__(self, name: str) -> Any:
        return getattr(self._finder, name)
