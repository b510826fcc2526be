"""Renew the pins of every resolve: `python3.11 tools/renew_pins.py [RESOLVE ...]`.

The resolves stand in pants.toml. What each needs is written in
3rdparty/python/<resolve>-requirements.txt; pip resolves it to the newest versions that fit, and
locks/<resolve>.txt gets one `name==version` per line.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from torch_index import torch_index

ROOT = Path(__file__).resolve().parent.parent
PYTHON = (3, 11)  # the version that pants.toml runs everything on

# Most say with `-c` in their file whose lock binds them. torch's file is part of others', of which
# some cannot keep to core's lock.
BOUND_BY = {"torch": "core"}


def resolve(requirements: Path, *options: str) -> list[str]:
    """What pip would install for a requirements file, as sorted `name==version` lines."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += [*torch_index(), "--quiet", "--report", "-", "--requirement", str(requirements)]
    report = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE).stdout
    packages = [entry["metadata"] for entry in json.loads(report)["install"]]
    pins = sorted((canonical(package["name"]), public(package["version"])) for package in packages)
    return ["==".join(pin) for pin in pins]


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
    locks = tomllib.loads((ROOT / "pants.toml").read_text())["python"]["resolves"]
    if unknown := sorted(set(names) - set(locks)):
        sys.exit(f"renew_pins: no resolve {', '.join(unknown)}; there are {', '.join(locks)}")
    for name in names or locks:
        bound = ("--constraint", str(ROOT / locks[BOUND_BY[name]])) if name in BOUND_BY else ()
        pins = resolve(ROOT / "3rdparty" / "python" / f"{name}-requirements.txt", *bound)
        (ROOT / locks[name]).write_text("\n".join(pins) + "\n")
        print(f"{locks[name]}: {len(pins)} pins")


if __name__ == "__main__":
    main(sys.argv[1:])
