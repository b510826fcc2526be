"""Count the faulty callbacks that the contract catches, and the correct ones that it blames.

    python tools/zoo.py [--second] [--only NAME …] [--messages] [--jobs N] [--json FILE]

This checks each specimen of `packages/callback-contract/tests/zoo`, or of `second_zoo` with
`--second`, in a process of its own, and prints what the contract found. The rules were improved
with the first zoo, but not with the second. The README of `callback-contract` tells how both were
written. The environment needs `callback-core`, `callback-contract`, pytest, numpy and torch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

TESTS: Final = Path(__file__).resolve().parents[1] / "packages" / "callback-contract" / "tests"

ONE: Final = """
import json, os, sys
from importlib import import_module
from callback_contract import check
module, name = sys.argv[1:3]
zoo = import_module(module)
found = {specimen.name: specimen for specimen in zoo.load()}
results = check(found[name].suite)
kept = sum(r.outcome == "kept" for r in results)
failed = [r for r in results if r.outcome in ("broken", "crashed")]
bad = {r.rule.id: f"{r.outcome}: {r.message}" for r in failed}
print("\\nRESULT " + json.dumps([kept, bad]), flush=True)
os._exit(0)
"""
"""Checks one specimen. It exits at once, because a faulty one may leave a thread that hangs."""

LIST: Final = """
import json, sys
from importlib import import_module
zoo = import_module(sys.argv[1])
print(json.dumps([[s.name, s.kind, s.is_faulty, s.about] for s in zoo.load()]))
"""

LIMIT: Final = 900.0


class Specimen(NamedTuple):
    """A callback of a zoo."""

    name: str
    kind: str
    is_faulty: bool
    about: str


def python(program: str, *arguments: str) -> str:
    """Run a program that can import the zoo's modules, and return its output."""
    path = os.pathsep.join(
        filter(None, (str(TESTS), str(TESTS / "second_zoo"), os.environ.get("PYTHONPATH")))
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def result_of(module: str, specimen: Specimen) -> tuple[int, dict[str, str]]:
    """Return how many rules a specimen keeps, and the messages of the rules that it breaks."""
    try:
        printed = python(ONE, module, specimen.name)
    except subprocess.TimeoutExpired:
        return 0, {"TIME": f"the contract did not end within {LIMIT:g} s"}
    except RuntimeError as error:
        return 0, {"PROCESS": str(error)[-2000:]}
    kept, bad = json.loads(printed.rpartition("RESULT ")[2])
    return kept, bad


def main(arguments: Sequence[str]) -> int:
    """Check the specimens; return 0 if all faulty ones are caught and no correct one is blamed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--second", action="store_true", help="check the second zoo instead")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="check only these specimens")
    parser.add_argument("--messages", action="store_true", help="print why rules are broken")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    given = parser.parse_args(arguments)
    module = "second_specimens" if given.second else "zoo.specimens"
    specimens = [Specimen(*one) for one in json.loads(python(LIST, module).splitlines()[-1])]
    if given.only:
        specimens = [s for s in specimens if s.name in given.only]
    results: dict[str, dict[str, str]] = {}
    with ThreadPoolExecutor(given.jobs) as pool:
        checked = pool.map(lambda s: result_of(module, s), specimens)
        for specimen, (kept, bad) in zip(specimens, checked, strict=True):
            results[specimen.name] = bad
            if given.json:  # after each specimen, because a run takes long
                given.json.write_text(json.dumps(results, indent=2) + "\n")
            print(line(specimen, kept, bad), flush=True)
            if given.messages:
                for message in bad.values():
                    print(f"    {message}", flush=True)
    return summary(specimens, results)


def line(specimen: Specimen, kept: int, bad: dict[str, Any]) -> str:
    """Return a line with what the contract found in a specimen."""
    right = bool(bad) == specimen.is_faulty
    kind = "faulty" if specimen.is_faulty else "correct"
    found = ", ".join(bad) or "nothing"
    mark = " " if right else "!"
    return f"{mark} {kind:7} {specimen.kind:8} {specimen.name:34} {kept:3} kept, broken: {found}"


def summary(specimens: Sequence[Specimen], results: dict[str, Any]) -> int:
    """Print the rates by kind, and return the exit code."""
    print(f"\n{'kind':10}{'faulty':>8}{'caught':>8}{'rate':>8}{'correct':>9}{'blamed':>8}")
    kinds = [*dict.fromkeys(specimen.kind for specimen in specimens)]
    for kind in [*kinds, "all"]:
        of_kind = [s for s in specimens if kind in (s.kind, "all")]
        faulty = [s for s in of_kind if s.is_faulty]
        caught = [s for s in faulty if results[s.name]]
        blamed = [s for s in of_kind if not s.is_faulty and results[s.name]]
        rate = f"{len(caught) / len(faulty):.0%}" if faulty else "-"
        correct = len(of_kind) - len(faulty)
        print(f"{kind:10}{len(faulty):8}{len(caught):8}{rate:>8}{correct:9}{len(blamed):8}")
    return int(any(bool(results[s.name]) != s.is_faulty for s in specimens))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
