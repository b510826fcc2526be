"""Install each package as who works on it does, and run its tests: `try_editable.py [PACKAGE ...]`.

Each package gets an environment of its own, with its pins: the packages of ours that it or its
tests need, and it itself with the extra `test`, all editable. There `pytest` runs in its folder.
What follows `--` goes to pytest: `try_editable.py callback-core -- -m "not slow"`.

With `--uv`, uv installs them: it names the package alone, since uv finds the others beside it, and
takes a small part of pip's time.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from environments import Environment
from metadata import siblings
from trackers import ROOT, lock_of, project_of, with_what_it_needs

PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))


def editable(package: str) -> list[str]:
    """The arguments by which pip installs a package with all that its tests need."""
    named = siblings(project_of(package), PACKAGES)
    needed = dict.fromkeys(name for one in [*named, package] for name in with_what_it_needs(one))
    others = [f"{ROOT}/packages/{name}" for name in needed if name != package]
    return [part for what in [*others, f"{ROOT}/packages/{package}[test]"] for part in ("-e", what)]


def install(environment: Environment, package: str, with_uv: bool) -> None:
    """Install a package with all that its tests need, and with its pins."""
    if not with_uv:
        environment.install(*editable(package), constraints=lock_of(package))
        return
    environment.install("uv")
    command = [str(environment.python), "-m", "uv", "pip", "install", "--quiet"]
    command += ["--python", str(environment.python), "--constraint", str(lock_of(package))]
    links = os.environ.get("PIP_FIND_LINKS")
    command += ["--find-links", links] if links else ["--torch-backend", "cpu"]
    subprocess.run([*command, "-e", f"packages/{package}[test]"], cwd=ROOT, check=True)


def try_package(package: str, with_uv: bool, pytest: list[str]) -> tuple[str, bool]:
    """Install a package, run its tests, and return what is to be printed and whether they pass."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        environment = Environment(Path(folder) / "environment")
        install(environment, package, with_uv)
        installed = time.monotonic()
        done = environment.run(
            str(environment.folder / "bin" / "pytest"),
            *pytest,
            variables={"CI": "true"},
            cwd=ROOT / "packages" / package,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
    tested = time.monotonic()
    lines = done.stdout.splitlines()
    if done.returncode == 0:
        lines = [line for line in lines if " passed" in line][-1:]  # others may follow pytest's sum
    took = f"{installed - begun:.0f} s to install, {tested - installed:.0f} s to test"
    return "\n".join([f"try_editable: {package}: {took}", *lines]), done.returncode == 0


def main() -> None:
    """Try what the command line asks for, and exit with 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="by default all")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (%(default)s)")
    parser.add_argument("--uv", action="store_true", help="install with uv instead of pip")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    options, for_pytest = parser.parse_args(words[:end]), words[end + 1 :]
    if unknown := sorted(set(options.packages) - set(PACKAGES)):
        parser.error(f"no package {', '.join(unknown)}; there are {', '.join(PACKAGES)}")
    failed = []
    with ThreadPoolExecutor(options.jobs) as pool:
        chosen = options.packages or PACKAGES
        tried = pool.map(
            lambda package: (package, *try_package(package, options.uv, for_pytest)), chosen
        )
        for package, text, works in tried:
            print(text, flush=True)
            if not works:
                failed.append(package)
    print(f"try_editable: {', '.join(failed) + ': failed' if failed else 'all in order'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
