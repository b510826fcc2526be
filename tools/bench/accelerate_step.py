"""Compare the time of a step of a script of Accelerate with trackers, and without any.

    python tools/bench/accelerate_step.py [--check]

Each step, of a few milliseconds, logs two values. One side has no tracker; the others have one that
takes 200 ms per call, or one that hangs when it opens. The target: a step takes at most 1.05 times
as long as without.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any, Final

import torch
from accelerate import Accelerator
from table import Targets, checks, print_table, shown
from torch import nn
from tracking import DELAY, FLUSH_LIMIT, Nowhere

from callback_accelerate import make_trackers
from callback_core.tracking import TrackerCallback

STEPS: Final = 300
FIRST: Final = 50
"""The steps before this one are not measured."""

REPEATS: Final = 9
RATIO: Final = 1.05


def steps(callbacks: Callable[[], Iterable[TrackerCallback]]) -> list[float]:
    """Train, and return the seconds of each step."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        trackers: Any = make_trackers(callbacks(), folder)
        accelerator = Accelerator(log_with=trackers or None, project_dir=folder, cpu=True)
        accelerator.init_trackers("bench", {"lr": 0.1})
        torch.manual_seed(0)
        x, labels = torch.randn(128, 256), torch.randint(10, (128,))
        model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 10))
        model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
        taken = []
        for step in range(STEPS):
            begun = perf_counter()
            loss = nn.functional.cross_entropy(model(x), labels)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            accelerator.log({"loss": loss.item(), "accuracy": 0.9}, step=step)
            taken.append(perf_counter() - begun)
        accelerator.end_training()
        return taken[FIRST:]


def sent_to(**how: Any) -> list[TrackerCallback]:
    """Return a callback that sends to a slow or hanging tracker."""
    return [TrackerCallback(Nowhere(**how), flush_limit=FLUSH_LIMIT)]


def main() -> None:
    """Measure, and print the results."""
    checks()  # reject a wrong command line before the measurement
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    sides: dict[str, Callable[[], Iterable[TrackerCallback]]] = {
        "none": list,
        f"{DELAY * 1000:.0f} ms a call": partial(sent_to, delay=DELAY),
        "hangs when opened": partial(sent_to, hangs=True),
    }
    taken: dict[str, list[list[float]]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, callbacks in sides.items():
            taken[name].append(steps(callbacks))
    # Other load can only add time, so each step counts as it was when it was fastest.
    times = {name: median(map(min, zip(*runs, strict=True))) for name, runs in taken.items()}
    ratios = {name: time / times["none"] for name, time in times.items()}
    rows = [(name, shown(times[name]), f"{ratios[name]:.3f}") for name in sides]
    print_table("A step of Accelerate", ("tracker", "step", "ratio"), rows)
    targets = Targets()
    met = max(ratios.values()) <= RATIO
    targets.note(f"at most {RATIO} times the time without a tracker", met)
    targets.leave()


if __name__ == "__main__":
    main()
