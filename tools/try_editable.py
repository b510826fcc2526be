"""Install each package as who works on it does, and run its tests: `try_editable.py [PACKAGE ...]`.

Each package gets an environment of its own, with its pins: the packages of ours that it or its
tests need, and it itself with the extra `test`, all editable. There `pytest` runs in its folder.
What follows `--` goes to pytest: `try_editable.py callback-core -- -m "not slow"`.

With `--uv`, uv installs them: it names the package alone, since uv finds the others beside it, and
takes a small part of pip's time. `--python` and `--torch` try other versions, and print a table:

    python3.11 tools/try_editable.py --uv --python 3.11 3.12 3.13 --torch oldest newest

`oldest` is what trainer-torch admits. On Linux a torch that is not the pinned one comes with
gigabytes of CUDA, unless the environment says UV_TORCH_BACKEND=cpu and that index is reachable.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from check_requirements import parse
from environments import Environment
from metadata import pythons, siblings
from pants_setup import find_python
from trackers import ROOT, lock_of, project_of, with_what_it_needs

PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OF_TORCH = ("torch", "sympy", "setuptools")
"""Pins that another torch may contradict."""


class Versions(NamedTuple):
    """What a package is tried with.

    Attributes:
        python: A minor version.
        torch: `pinned`, `oldest`, `newest` or a version.
    """

    python: str
    torch: str

    def __str__(self) -> str:
        return f"Python {self.python}, torch {self.torch}"


class Outcome(NamedTuple):
    """How the tests of a package ended: in a few words, and whether all is well."""

    summary: str
    works: bool


def needed_by(package: str) -> list[str]:
    """The packages of ours that a package and its tests need, itself the last."""
    named = [*siblings(project_of(package), PACKAGES), package]
    return list(dict.fromkeys(one for name in named for one in with_what_it_needs(name)))


def requirement_of_torch(package: str) -> str | None:
    """What a package or its tests require of torch, `None` where they do without."""
    own = project_of(package)["optional-dependencies"]["test"]
    ours = [one for name in needed_by(package) for one in project_of(name)["dependencies"]]
    return next((one for one in [*own, *ours] if parse(one)[0] == "torch"), None)


def install(environment: Environment, package: str, torch: str, with_uv: bool) -> None:
    """Install a package with all that its tests need, and with its pins."""
    if not with_uv:
        paths = [f"{ROOT}/packages/{name}" for name in needed_by(package)]
        paths[-1] += "[test]"
        editable = [part for path in paths for part in ("-e", path)]
        environment.install(*editable, constraints=lock_of(package))
        return
    environment.install("uv")
    pins = lock_of(package).read_text(encoding="utf-8").splitlines()
    command = [str(environment.python), "-m", "uv", "pip", "install", "--quiet"]
    command += ["--python", str(environment.python), "-e", f"packages/{package}[test]"]
    required = requirement_of_torch(package)
    if required is not None and torch != "pinned":
        pins = [pin for pin in pins if parse(pin)[0] not in OF_TORCH]
        oldest = required.replace(">=", "==")
        command.append({"oldest": oldest, "newest": "torch"}.get(torch, f"torch=={torch}"))
    elif links := os.environ.get("PIP_FIND_LINKS"):
        command += ["--find-links", links]
    else:
        command += ["--torch-backend", "cpu"]
    constraints = environment.folder / "constraints.txt"
    constraints.write_text("\n".join(pins), encoding="utf-8")
    subprocess.run([*command, "--constraint", str(constraints)], cwd=ROOT, check=True)


def try_package(package: str, versions: Versions, with_uv: bool, pytest: list[str]) -> Outcome:
    """Install a package, run its tests, and print what they print where one fails."""
    if versions.python not in pythons(project_of(package)["requires-python"]):
        return Outcome("not supported", True)
    python = sys.executable if versions.python == THIS_PYTHON else find_python(versions.python)
    if python is None:
        return Outcome("there is no such Python here", False)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = Environment(Path(folder) / "environment", python)
        try:
            install(environment, package, versions.torch, with_uv)
        except subprocess.CalledProcessError:
            return Outcome("not installed", False)
        installed = time.monotonic()
        done = environment.run(
            str(environment.folder / "bin" / "pytest"),
            *pytest,
            variables={"CI": "true", "OMP_NUM_THREADS": "1"},
            cwd=ROOT / "packages" / package,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    tested = time.monotonic()
    took = f"{installed - begun:.0f} s to install, {tested - installed:.0f} s to test"
    print(f"try_editable: {package}, {versions}: {took}", flush=True)
    if done.returncode:
        print(done.stdout, flush=True)
    sums = [line for line in done.stdout.splitlines() if " passed" in line or " failed" in line]
    last = sums[-1].strip("= ").partition(" in ")[0] if sums else "no test ran"
    return Outcome(last, done.returncode == 0)


def table(
    packages: Sequence[str],
    columns: Sequence[Versions],
    outcomes: dict[tuple[str, Versions], Outcome],
) -> Iterator[str]:
    """The lines of a table: a row for each package, in bold what is not well."""
    yield " | ".join(["| package", *map(str, columns)]) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for package in packages:
        cells = [outcomes.get((package, column)) for column in columns]
        yield " | ".join([f"| {package}", *map(_shown, cells)]) + " |"


def _shown(outcome: Outcome | None) -> str:
    if outcome is None:
        return "needs no torch"
    return outcome.summary if outcome.works else f"**{outcome.summary}**"


def main() -> None:
    """Try what the command line asks for, and exit with 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="by default all")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (%(default)s)")
    parser.add_argument("--uv", action="store_true", help="install with uv instead of pip")
    parser.add_argument("--python", nargs="+", default=[THIS_PYTHON], help="such as 3.12")
    parser.add_argument(
        "--torch", nargs="+", default=["pinned"], help="pinned, oldest, newest, or a version"
    )
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    options, for_pytest = parser.parse_args(words[:end]), words[end + 1 :]
    if unknown := sorted(set(options.packages) - set(PACKAGES)):
        parser.error(f"no package {', '.join(unknown)}; there are {', '.join(PACKAGES)}")
    if options.torch != ["pinned"] and not options.uv:
        parser.error("--torch needs --uv, by which an environment shares files with the others")
    packages = options.packages or PACKAGES
    columns = [Versions(one, torch) for one in options.python for torch in options.torch]
    with ThreadPoolExecutor(options.jobs) as pool:
        tried = {
            (package, column): pool.submit(try_package, package, column, options.uv, for_pytest)
            for column in columns
            for package in packages
            if column.torch == options.torch[0] or requirement_of_torch(package)
        }
    outcomes = {key: trial.result() for key, trial in tried.items()}
    print("\n".join(table(packages, columns, outcomes)))
    sys.exit(not all(outcome.works for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
