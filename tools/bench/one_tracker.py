"""Measure what one installed tracker costs a training, and print JSON.

    python tools/bench/one_tracker.py cost NAME
    python tools/bench/one_tracker.py away NAME

`tools/measure_trackers.py` runs this script in an environment for each tracker. Environment
variables set where the tracker keeps its runs (`cost`), or the address of a service that is down
(`away`). For each training with the tracker, the same process runs one without it.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

from tracking import FLUSH_LIMIT, STEP, Training, work_of

from callback_core import TrainerCallback, get_reporting_integration_callbacks
from callback_core.tracking import Opening, Point, TrackerCallback

REPEATS: Final = 3
CALLS: Final = 200


def callback_of(name: str) -> TrainerCallback:
    """Return the tracker's callback, with `FLUSH_LIMIT` if it is a `TrackerCallback`."""
    [kind] = get_reporting_integration_callbacks(name)
    return kind(flush_limit=FLUSH_LIMIT) if issubclass(kind, TrackerCallback) else kind()


def cost(name: str) -> dict[str, float]:
    """Return the seconds to log five values: in the training's thread, and with the SDK itself."""
    work = work_of(STEP)
    ours = []
    for _ in range(REPEATS):
        bare, tracked = Training(None, work), Training(callback_of(name), work)
        for training in (bare, tracked):
            training.run()
        ours.append(median(tracked.logging) - median(bare.logging))
    found = {"log": max(0.0, min(ours))}
    callback = callback_of(name)
    if isinstance(callback, TrackerCallback):
        found["log of the SDK"] = own_cost(callback.tracker)
    return found


def own_cost(tracker: Any) -> float:
    """Return the seconds in which a tracker takes five values, with one call per step."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        folder = Path(directory) / "tracking" / "run" / tracker.name
        folder.mkdir(parents=True)
        tracker.open(Opening("own cost", Path(directory), folder, time=time.time()))
        taken = []
        for step in range(CALLS):
            points = [Point(f"train/{n}", 1.0, step, time.time(), 0.5) for n in "abcde"]
            begun = time.perf_counter()
            tracker.log_metrics(points)
            taken.append(time.perf_counter() - begun)
        tracker.close("finished")
        return median(taken)


def away(name: str) -> dict[str, float]:
    """Return the times of a training whose tracker cannot reach its service."""
    work = work_of(STEP)
    bare, tracked = [], []
    for _ in range(REPEATS):
        bare.append(Training(None, work).run())
        tracked.append(Training(callback_of(name), work).run())
    # Other load can only add time, so take the fastest.
    steps = min(run[0] for run in tracked) / min(run[0] for run in bare)
    return {"steps": steps, "end": min(run[1] for run in tracked)}


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    measured = {"cost": cost, "away": away}[sys.argv[1]](sys.argv[2])
    print(json.dumps(measured), flush=True)
