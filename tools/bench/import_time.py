"""Measure `import callback_core`, and check that it imports neither torch nor numpy nor tqdm.

    python tools/bench/import_time.py [--check]

The target is at most 60 ms more than an interpreter that imports nothing. For comparison, the
script also measures the import of transformers' module, and that of both Trainers beside torch's.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Final

from table import Targets, checks, print_table, shown, times_in_turns

REPEATS: Final = 31
LIMIT: Final = 0.060
UNWANTED: Final = ("torch", "numpy", "tqdm")

SIDES: Final = {
    "nothing": "pass",
    "callback_core": "import callback_core",
}
OTHERS: Final = {
    "transformers.trainer_callback": "import transformers.trainer_callback",
    "torch": "import torch",
    "trainer_torch": "import trainer_torch",
    "transformers.Trainer": "from transformers import Trainer",
}


def python(code: str) -> str:
    """Run `code` in an interpreter of its own and return what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Measure, and print the results."""
    checks()  # reject a wrong command line before the measurement
    targets = Targets()
    ours = {name: partial(python, code) for name, code in SIDES.items()}
    others = {name: partial(python, code) for name, code in OTHERS.items()}
    taken = times_in_turns(ours, REPEATS, typical=min) | times_in_turns(others, 3, typical=min)
    bare = taken["nothing"]
    print_table(
        "An interpreter that imports",
        ("", "total", "over nothing"),
        (
            (name, shown(seconds), shown(max(0.0, seconds - bare)))
            for name, seconds in taken.items()
        ),
    )
    targets.note(
        f"callback_core at most {LIMIT * 1e3:.0f} ms over nothing",
        taken["callback_core"] - bare <= LIMIT,
    )
    listed = python(f"import sys, callback_core; print(*sys.modules.keys() & {set(UNWANTED)})")
    found = ", ".join(sorted(listed.split()))
    targets.note(f"imports none of {', '.join(UNWANTED)} (found: {found or 'none'})", not found)
    targets.leave()


if __name__ == "__main__":
    main()
