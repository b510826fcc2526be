"""Measure what a long run costs at its end: a log, and an evaluation after it.

    python tools/bench/long_run.py [--check] [--steps 200000]

There are two targets:

- A log at the end of a run of 200,000 logged steps takes at most 1.5 times as long as one at its
  beginning.
- An evaluation after that run takes at most 1.5 times as long as one after a run of 2,000 steps.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from statistics import median
from time import perf_counter, sleep
from typing import Final

from table import Targets, print_table, shown
from tracking import Arguments, Nowhere

from callback_core import CallbackHandler, DefaultFlowCallback, TrainerControl, TrainerState
from callback_core.tracking import TrackerCallback

RATIO: Final = 1.5
SHORT: Final = 2000
SAMPLE: Final = 1000
EVALUATIONS: Final = 9
FLUSH_LIMIT: Final = 600.0


class Run:
    """A hand-written training that logs four values at each step.

    Args:
        output_dir: The directory that it writes to.
        steps: The number of steps.
    """

    def __init__(self, output_dir: str, steps: int) -> None:
        self.args, self.control = Arguments(output_dir), TrainerControl()
        self.state = TrainerState(max_steps=steps)
        self.callback = TrackerCallback(Nowhere(), flush_limit=FLUSH_LIMIT)
        callbacks = [DefaultFlowCallback(), self.callback]
        self.handler = CallbackHandler(callbacks, None, None, None, None)
        self.costs: list[float] = []

    def train(self) -> None:
        """Train from the first step to the last."""
        state, control = self.state, self.control
        self.handler.on_train_begin(self.args, state, control)
        self.handler.on_epoch_begin(self.args, state, control)
        steps = range(1, state.max_steps + 1)
        for state.global_step in steps:
            self.log(loss=1 / state.global_step, grad_norm=0.3, learning_rate=1e-4)
        self.handler.on_train_end(self.args, state, control)

    def log(self, **logs: float) -> None:
        """Log values, and note what that costs."""
        logs["epoch"] = self.state.global_step / self.state.max_steps
        before = perf_counter()
        self.handler.on_log(self.args, self.state, self.control, logs=logs)
        self.costs.append(perf_counter() - before)

    def evaluation(self) -> float:
        """Return the median seconds from an evaluation's log until its run is closed again."""
        seconds = []
        for number in range(EVALUATIONS):
            before = perf_counter()
            self.log(eval_loss=float(number))
            member = self.callback.member
            while member is not None and member.is_served:
                sleep(0.0005)
            seconds.append(perf_counter() - before)
        return median(seconds)


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--steps", type=int, default=200_000)
    options = parser.parse_args()
    sys.argv = sys.argv[:1] + (["--check"] if options.check else [])
    logging.disable(logging.WARNING)
    targets = Targets()
    with tempfile.TemporaryDirectory() as folder:
        short = Run(f"{folder}/short", SHORT)
        long = Run(f"{folder}/long", options.steps)
        short.train()
        long.train()
        first, last = median(long.costs[:SAMPLE]), median(long.costs[-SAMPLE:])
        after_short, after_long = short.evaluation(), long.evaluation()
    rows = [
        ("a log", shown(first), shown(last), f"{last / first:.2f}"),
        ("an evaluation", shown(after_short), shown(after_long), f"{after_long / after_short:.2f}"),
    ]
    print_table(f"A run of {options.steps:,} steps", ("", "early", "late", "ratio"), rows)
    targets.note(f"a log at most {RATIO} times", last <= RATIO * first)
    targets.note(f"an evaluation at most {RATIO} times", after_long <= RATIO * after_short)
    targets.leave()


if __name__ == "__main__":
    main()
