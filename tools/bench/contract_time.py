"""How long the whole contract takes, with a tracker that keeps its runs in files.

    python tools/bench/contract_time.py [--check]

It may take at most 15 s by the clock, the import of torch included. What else a machine does only
adds, so the fastest turn counts.
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
    """Return the seconds by the clock and of computing, and how many rules were kept."""
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-c", ONCE],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    took, computed, kept = json.loads(done.stdout.splitlines()[-1])
    return took, computed, kept


def main() -> None:
    """Measure, and print what came of it."""
    checks()  # refuses a wrong command line before the measurement, not after it
    targets = Targets()
    turns = [once() for _ in range(REPEATS)]
    print_table(
        "The whole contract",
        ("turn", "by the clock", "computing", "rules kept"),
        (
            (str(number), f"{took:.1f} s", f"{computed:.1f} s", str(kept))
            for number, (took, computed, kept) in enumerate(turns, 1)
        ),
    )
    targets.note(f"at most {LIMIT:.0f} s by the clock", min(turns)[0] <= LIMIT)
    targets.leave()


if __name__ == "__main__":
    main()
