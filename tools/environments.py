"""Virtual environments with packages of this repository, made as users make them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from renew_pins import canonical
from torch_index import torch_index, torch_index_of_uv
from trackers import ROOT


class Environment:
    """A virtual environment in a new folder, by default with the Python that runs this script."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.has_uv = False
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        self.install("--upgrade", "pip")  # an older pip takes minutes to resolve all trackers

    def install(self, *what: str, constraints: Path | None = None) -> None:
        """Install with pip, within the versions in `constraints`."""
        command = [str(self.python), "-m", "pip", "install", "--quiet", *torch_index()]
        command += ["--disable-pip-version-check", "--no-compile"]  # Python compiles modules on use
        if constraints is not None:
            command += ["--constraint", str(constraints)]
        subprocess.run([*command, *what], check=True)

    def install_with_uv(self, *what: str, constraints: Path) -> None:
        """Install with uv, which links files from its cache. pip takes a minute to copy torch."""
        if not self.has_uv:
            self.install("uv")
            self.has_uv = True
        command = [str(self.python), "-m", "uv", "pip", "install", "--quiet", *torch_index_of_uv()]
        command += ["--python", str(self.python), "--constraint", str(constraints)]
        subprocess.run([*command, *what], check=True)

    def install_ours(self, packages: Iterable[str], constraints: Path | None = None) -> None:
        """Install the wheels of these packages from dist/, and their requirements."""
        self.install(*wheels_of(packages), constraints=constraints)

    def distributions(self) -> dict[str, str]:
        """Return the versions of all installed distributions, by name."""
        command = [str(self.python), "-m", "pip", "list", "--format", "json"]
        command += ["--disable-pip-version-check"]
        listed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        return {canonical(entry["name"]): entry["version"] for entry in json.loads(listed)}

    def run(self, *arguments: str, variables: dict[str, str], **options: Any) -> Any:
        """Run its Python with `variables`, and without other variables that trackers read."""
        command = [str(self.python), *arguments]
        return subprocess.run(command, env=_plain() | variables, **options)

    def start(self, *arguments: str, variables: dict[str, str], **options: Any) -> Any:
        """Start its Python in the same way, with its output in a text pipe."""
        command = [str(self.python), *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=_plain() | variables, **pipes, **options)

    @contextmanager
    def serving(self, script: str, *arguments: str) -> Iterator[str]:
        """Run a script that serves and prints its address, and return the address."""
        process = self.start(script, *arguments, variables={}, stdin=subprocess.PIPE)
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
            try:
                process.wait(10)
            finally:
                process.kill()


def _plain() -> dict[str, str]:
    names = ("PATH", "HOME", "TMPDIR", "LANG")
    return {name: os.environ[name] for name in names if name in os.environ}


def wheels_of(packages: Iterable[str]) -> list[str]:
    """Return the wheels of these packages in dist/, each once.

    Raises:
        SystemExit: A package has no wheel, or several.
    """
    wheels = []
    for package in dict.fromkeys(packages):
        found = sorted((ROOT / "dist").glob(f"{package.replace('-', '_')}-*.whl"))
        if len(found) != 1:
            sys.exit(
                f"dist/ has {len(found)} wheels of {package}. Build one of each: rm -rf dist; "
                "tools/pants package ::"
            )
        wheels.append(str(found[0]))
    return wheels
