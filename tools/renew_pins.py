"""Renew the pins of every resolve: `python3.11 tools/renew_pins.py [RESOLVE ...]`.

pants.toml lists the resolves. 3rdparty/python/<resolve>-requirements.txt contains the requirements
of each. pip resolves them to the newest versions that fit together, and locks/<resolve>.txt gets
one `name==version` per line.

Three more resolves are not in pants.toml. Users pass locks/together.txt to pip as constraints: it
pins the dependencies of all trackers' packages in one environment. tools/check_dists.py installs
locks/dists.txt. tools/mutants.py runs in locks/mutants.txt.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from torch_index import torch_index

ROOT = Path(__file__).resolve().parent.parent
PYTHON = (3, 11)  # the version that pants.toml runs everything on

# Most requirements files name, with `-c`, the lock that constrains them. torch's file cannot: other
# resolves include it, and some of those are incompatible with core's lock.
BOUND_BY = {"torch": "core"}

TOGETHER = "together"
# Resolves that pants.toml does not have.
OTHERS = {name: f"locks/{name}.txt" for name in (TOGETHER, "dists", "mutants")}


def resolve(*what: str) -> list[str]:
    """Return what pip would install, except folders, as sorted `name==version` lines."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += [*torch_index(), "--quiet", "--report", "-"]
    report = subprocess.run([*command, *what], check=True, stdout=subprocess.PIPE).stdout
    entries = json.loads(report)["install"]
    packages = [entry["metadata"] for entry in entries if "dir_info" not in entry["download_info"]]
    pins = sorted((canonical(package["name"]), public(package["version"])) for package in packages)
    return ["==".join(pin) for pin in pins]


def resolve_together(beside: str) -> list[str]:
    """Return pins for all trackers' packages that are compatible with the requirements in a file.

    The pins omit dependencies that only the packages in the file have, so that users can choose
    those. They omit torch, because no tracker's package requires it, and setuptools, because some
    versions of torch admit only older ones.

    Args:
        beside: The path of the requirements file.
    """
    ours = [ROOT / "packages" / "callback-core"]
    for project in sorted(ROOT.glob("packages/*/pyproject.toml")):
        entry_points = tomllib.loads(project.read_text())["project"].get("entry-points", {})
        if "callback_core.integrations" in entry_points:
            ours.append(project.parent)
    folders = [str(folder) for folder in ours]
    with TemporaryDirectory() as scratch:
        pins = Path(scratch, "pins.txt")
        pins.write_text("\n".join(resolve("--requirement", beside, *folders)))
        needed = resolve("--constraint", str(pins), *folders)
    return [pin for pin in needed if not pin.startswith("setuptools==")]


def canonical(name: str) -> str:
    """Return the name as package indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def public(version: str) -> str:
    """Return the version without the suffix of a local build, such as +cpu."""
    return version.partition("+")[0]


def main(names: list[str]) -> None:
    """Renew the named resolves, or all.

    By default, they are renewed in the order of pants.toml, because an earlier lock can constrain a
    later one.
    """
    if sys.version_info[:2] != PYTHON:
        sys.exit(f"renew_pins: run this with CPython {PYTHON[0]}.{PYTHON[1]}")
    locks = tomllib.loads((ROOT / "pants.toml").read_text())["python"]["resolves"] | OTHERS
    if unknown := sorted(set(names) - set(locks)):
        sys.exit(f"renew_pins: unknown: {', '.join(unknown)}; choose from {', '.join(locks)}")
    for name in names or locks:
        requirements = str(ROOT / "3rdparty" / "python" / f"{name}-requirements.txt")
        if name == TOGETHER:
            pins = resolve_together(requirements)
        else:
            bound = ("--constraint", str(ROOT / locks[BOUND_BY[name]])) if name in BOUND_BY else ()
            pins = resolve("--requirement", requirements, *bound)
        (ROOT / locks[name]).write_text("\n".join(pins) + "\n")
        print(f"{locks[name]}: {len(pins)} pins")


if __name__ == "__main__":
    main(sys.argv[1:])
