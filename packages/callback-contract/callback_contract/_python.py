"""Another Python that finds what this one does, and this one without a package."""

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
    """Return an environment in which another Python finds what this one finds, from anywhere."""
    paths = [os.path.abspath(entry) for entry in sys.path if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}


def run_python(
    *arguments: str,
    timeout: float = 540.0,
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
