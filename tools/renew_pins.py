"""Renew the pins of every resolve: `python3.11 tools/renew_pins.py [RESOLVE ...]`.

The resolves stand in pants.toml. What each needs is written in
3rdparty/python/<resolve>-requirements.txt; pip resolves it to the newest versions that fit, and
locks/<resolve>.txt gets one `name==version` per line.

`together` is none of Pants' resolves: locks/together.txt is for users, who give it to pip as
constraints. It pins what the trackers' packages need, all in one environment. Neither is `dists`,
which tools/check_dists.py installs.
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

# Most say with `-c` in their file whose lock binds them. torch's file is part of others', of which
# some cannot keep to core's lock.
BOUND_BY = {"torch": "core"}

TOGETHER = "together"
# Which are not among Pants' resolves.
OTHERS = {TOGETHER: f"locks/{TOGETHER}.txt", "dists": "locks/dists.txt"}


def resolve(*what: str) -> list[str]:
    """What pip would install, but for folders, as sorted `name==version` lines."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += [*torch_index(), "--quiet", "--report", "-"]
    report = subprocess.run([*command, *what], check=True, stdout=subprocess.PIPE).stdout
    entries = json.loads(report)["install"]
    packages = [entry["metadata"] for entry in entries if "dir_info" not in entry["download_info"]]
    pins = sorted((canonical(package["name"]), public(package["version"])) for package in packages)
    return ["==".join(pin) for pin in pins]


def resolve_together(beside: str) -> list[str]:
    """Pins of what all trackers' packages need, which fit beside the packages of a file.

    What those alone need is not among the pins, so that a user may have other versions of them.
    Nor is torch, which no tracker's package requires, nor setuptools, of which some torches admit
    only older ones.
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
    """The name as package indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def public(version: str) -> str:
    """The version without the suffix of a local build, such as +cpu."""
    return version.partition("+")[0]


def main(names: list[str]) -> None:
    """Renew the named resolves, or all.

    The order is that of pants.toml, since a resolve may be bound by the lock of an earlier one.
    """
    if sys.version_info[:2] != PYTHON:
        sys.exit(f"renew_pins: run this with CPython {PYTHON[0]}.{PYTHON[1]}")
    locks = tomllib.loads((ROOT / "pants.toml").read_text())["python"]["resolves"] | OTHERS
    if unknown := sorted(set(names) - set(locks)):
        sys.exit(f"renew_pins: no resolve {', '.join(unknown)}; there are {', '.join(locks)}")
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
