"""Install each package in editable mode, and run its tests: `try_editable.py [PACKAGE ...]`.

Each package gets its own environment, with its pins. The package with its extra `test`, and the
packages of this repository that it or its tests need, are all installed in editable mode. Then
`pytest` runs in its folder. Arguments after `--` go to pytest:
`try_editable.py callback-core -- -m "not slow"`.

With `--one-per-file`, pytest imports all test files, but runs only the first test of each. This
shows that the extra `test` names all that the tests need.

uv installs the package. It finds the other packages of the repository by itself, and is much faster
than pip. With `--pip`, pip then installs them too, as it would without uv. `--python` and `--torch`
select other versions, and print a table:

    python3.11 tools/try_editable.py --python 3.11 3.12 3.13 --torch oldest newest

`oldest` is the oldest torch that trainer-torch admits. If `PIP_FIND_LINKS` is set, as for a folder
with torch for the CPU, any other torch brings gigabytes of CUDA packages.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from check_requirements import parse
from environments import Environment
from metadata import pythons, siblings
from pants_setup import find_python
from trackers import ROOT, lock_of, project_of, with_what_it_needs

PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OF_TORCH = ("torch", "sympy", "setuptools")
"""Pins that are dropped for another torch, because they may conflict with it."""


class Versions(NamedTuple):
    """The versions to test a package with.

    Attributes:
        python: A minor version.
        torch: `pinned`, `oldest`, `newest` or a version.
    """

    python: str
    torch: str

    def __str__(self) -> str:
        return f"Python {self.python}, torch {self.torch}"


class Outcome(NamedTuple):
    """The result of a package's tests: a summary, and whether they passed."""

    summary: str
    works: bool


def needed_by(package: str) -> list[str]:
    """Return the packages of this repository that a package and its tests need, itself last."""
    named = [*siblings(project_of(package), PACKAGES), package]
    return list(dict.fromkeys(one for name in named for one in with_what_it_needs(name)))


def requirement_of_torch(package: str) -> str | None:
    """Return the requirement of a package or its tests on torch; `None` without one."""
    own = project_of(package)["optional-dependencies"]["test"]
    ours = [one for name in needed_by(package) for one in project_of(name)["dependencies"]]
    return next((one for one in [*own, *ours] if parse(one)[0] == "torch"), None)


def install(environment: Environment, package: str, torch: str, with_pip: bool) -> None:
    """Install a package and everything that its tests need, with its pins."""
    pins = lock_of(package).read_text(encoding="utf-8").splitlines()
    what = ["-e", f"{ROOT}/packages/{package}[test]"]
    required = requirement_of_torch(package)
    if required is not None and torch != "pinned":
        pins = [pin for pin in pins if parse(pin)[0] not in OF_TORCH]
        oldest = required.replace(">=", "==")
        what.append({"oldest": oldest, "newest": "torch"}.get(torch, f"torch=={torch}"))
    constraints = environment.folder / "constraints.txt"
    constraints.write_text("\n".join(pins), encoding="utf-8")
    environment.install_with_uv(*what, constraints=constraints)
    if with_pip:
        folders = [f"{ROOT}/packages/{name}" for name in needed_by(package)[:-1]]
        others = [part for folder in folders for part in ("-e", folder)]
        environment.install(*others, *what, constraints=constraints)


def run_pytest(
    environment: Environment, package: str, arguments: Sequence[str], one_per_file: bool
) -> Any:
    """Run pytest in the folder of a package, and return its exit code and its output."""
    variables = {"CI": "true", "OMP_NUM_THREADS": "1"}
    if one_per_file:
        arguments = [*arguments, "-p", "first_of_each_file"]
        variables["PYTHONPATH"] = str(ROOT / "tools" / "pytest_plugins")
    return environment.run(
        str(environment.folder / "bin" / "pytest"),
        *arguments,
        variables=variables,
        cwd=ROOT / "packages" / package,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


def try_package(
    package: str, versions: Versions, with_pip: bool, one_per_file: bool, pytest: list[str]
) -> Outcome:
    """Install a package and run its tests. If a test fails, print pytest's output."""
    if versions.python not in pythons(project_of(package)["requires-python"]):
        return Outcome("not supported", True)
    python = sys.executable if versions.python == THIS_PYTHON else find_python(versions.python)
    if python is None:
        return Outcome("no such Python", False)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = Environment(Path(folder) / "environment", python)
        try:
            install(environment, package, versions.torch, with_pip)
        except subprocess.CalledProcessError:
            return Outcome("not installed", False)
        installed = time.monotonic()
        done = run_pytest(environment, package, pytest, one_per_file)
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
    """Yield the lines of a table with one row per package. Failures are bold."""
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
    """Test what the command line names. Exit with 1 if anything fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="default: all")
    parser.add_argument(
        "--jobs", type=int, default=3, help="packages at once (default: %(default)s)"
    )
    parser.add_argument(
        "--one-per-file", action="store_true", help="run only the first test of each file"
    )
    parser.add_argument("--pip", action="store_true", help="install with pip, too")
    parser.add_argument("--python", nargs="+", default=[THIS_PYTHON], help="for example 3.12")
    parser.add_argument(
        "--torch", nargs="+", default=["pinned"], help="pinned, oldest, newest, or a version"
    )
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    options, for_pytest = parser.parse_args(words[:end]), words[end + 1 :]
    if unknown := sorted(set(options.packages) - set(PACKAGES)):
        parser.error(f"unknown: {', '.join(unknown)}; choose from {', '.join(PACKAGES)}")
    packages = options.packages or PACKAGES
    columns = [Versions(one, torch) for one in options.python for torch in options.torch]
    with ThreadPoolExecutor(options.jobs) as pool:
        tried = {
            (package, column): pool.submit(
                try_package, package, column, options.pip, options.one_per_file, for_pytest
            )
            for column in columns
            for package in packages
            if column.torch == options.torch[0] or requirement_of_torch(package)
        }
    outcomes = {key: trial.result() for key, trial in tried.items()}
    print("\n".join(table(packages, columns, outcomes)))
    sys.exit(not all(outcome.works for outcome in outcomes.values()))


if __name__ == "__main__":
    main()
