"""Compare how long `TrainerState` takes to save a long training: ours and transformers'.

    python tools/bench/save_state.py [--check]

There are two targets. With 100,000 log entries, ours takes at most a third of transformers' time.
The time per entry does not grow with the number of entries.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Final

import transformers.trainer_callback
from table import Targets, checks, print_table, shown, times_in_turns

import callback_core

ENTRIES: Final = (1_000, 10_000, 100_000)
REPEATS: Final = 5
SHARE: Final = 1 / 3
GROWTH: Final = 1.5
"""The time per entry may grow by this factor from the fewest to the most entries, for noise."""


def log_entries(number: int) -> list[dict[str, Any]]:
    """Return this many logs, like those of a trainer, all different."""
    return [
        {
            "loss": 2.5 / (step + 1) ** 0.3,
            "grad_norm": 1.25 + step % 97 / 13,
            "learning_rate": 5e-5 * (1 - step / number),
            "epoch": 3 * step / number,
            "step": step,
        }
        for step in range(number)
    ]


def saving(module: ModuleType, entries: list[dict[str, Any]], path: Path) -> Callable[[], None]:
    """Return a function that saves a state of `module` with these entries."""
    state = module.TrainerState(epoch=1.5, global_step=len(entries), log_history=entries)
    return partial(state.save_to_json, str(path))


def main() -> None:
    """Measure, and print the results."""
    checks()  # reject a wrong command line before the measurement
    targets, rows, each = Targets(), [], []
    for number in ENTRIES:
        entries = log_entries(number)
        with TemporaryDirectory() as directory:
            theirs_file, our_file = Path(directory, "theirs.json"), Path(directory, "ours.json")
            sides = {
                "theirs": saving(transformers.trainer_callback, entries, theirs_file),
                "ours": saving(callback_core, entries, our_file),
            }
            taken = times_in_turns(sides, REPEATS)
            read = [
                callback_core.TrainerState.load_from_json(path).log_history
                for path in (theirs_file, our_file)
            ]
            if read != [entries, entries]:
                raise SystemExit("save_state: a file differs from what was saved")
            sizes = [f"{path.stat().st_size / 1e6:.2f} MB" for path in (theirs_file, our_file)]
        theirs, ours = taken["theirs"], taken["ours"]
        each.append(ours / number)
        rows.append(
            (
                f"{number:,}",
                shown(theirs),
                shown(ours),
                f"1/{theirs / ours:.2f}",
                shown(ours / number),
                *sizes,
            )
        )
    head = ("entries", "transformers", "ours", "share", "ours per entry", "their file", "our file")
    print_table("TrainerState.save_to_json", head, rows)
    targets.note(
        f"at most a third of transformers' time at {ENTRIES[-1]:,} entries", ours <= SHARE * theirs
    )
    targets.note("the time per entry does not grow", each[-1] <= GROWTH * each[0])
    targets.leave()


if __name__ == "__main__":
    main()
