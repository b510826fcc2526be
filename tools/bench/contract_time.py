"""Measure the whole contract, for a tracker that keeps its runs in files.

    python tools/bench/contract_time.py [--check]

The target is 15 s of wall time, including the import of torch. Other load can only add time, so the
fastest repeat counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from table import Targets, checks, print_table

REPEATS: Final = 3
LIMIT: Final = 15.0
TESTS: Final = Path(__file__).resolve().parents[2] / "packages" / "callback-contract" / "tests"

ONCE: Final = """
import json, os
from time import perf_counter
from callback_contract import check
from reference_tracker import Reference

begun = perf_counter()
outcomes = [result.outcome for result in check(Reference)]
spent = os.times()
computed = spent.user + spent.system + spent.children_user + spent.children_system
print(json.dumps([perf_counter() - begun, computed, outcomes.count("kept")]))
"""


def once() -> tuple[float, float, int]:
    """Return the wall time and the CPU time in seconds, and how many rules were kept."""
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", ONCE],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    took, computed, kept = json.loads(done.stdout.splitlines()[-1])
    return took, computed, kept


def main() -> None:
    """Measure, and print the results."""
    checks()  # reject a wrong command line before the measurement
    targets = Targets()
    repeats = [once() for _ in range(REPEATS)]
    print_table(
        "The whole contract",
        ("repeat", "wall time", "CPU time", "rules kept"),
        (
            (str(number), f"{took:.1f} s", f"{computed:.1f} s", str(kept))
            for number, (took, computed, kept) in enumerate(repeats, 1)
        ),
    )
    targets.note(f"at most {LIMIT:.0f} s of wall time", min(repeats)[0] <= LIMIT)
    targets.leave()


if __name__ == "__main__":
    main()
