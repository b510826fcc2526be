"""Measure what a long run costs at its end: a log, an evaluation after it, and a resume.

    python tools/bench/long_run.py [--check] [--steps 200000]

There are three targets:

- A log at the end of a run of 200,000 logged steps takes at most 1.5 times as long as one at its
  beginning.
- An evaluation after that run takes at most 1.5 times as long as one after a run of 2,000 steps.
- A resume of that run parses its journal once.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Final

from table import Targets, print_table, shown
from tracking import Arguments, Nowhere

from callback_core import CallbackHandler, DefaultFlowCallback, TrainerControl, TrainerState
from callback_core.tracking import TrackerCallback, history
from callback_core.tracking.journal import Record, read

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
        at: The step at which it resumes; 0 to begin.
    """

    def __init__(self, output_dir: str, steps: int, at: int = 0) -> None:
        self.args, self.control = Arguments(output_dir), TrainerControl()
        self.state = TrainerState(max_steps=steps, global_step=at)
        self.callback = TrackerCallback(Nowhere(), flush_limit=FLUSH_LIMIT)
        callbacks = [DefaultFlowCallback(), self.callback]
        self.handler = CallbackHandler(callbacks, None, None, None, None)
        self.costs: list[float] = []

    def train(self) -> None:
        """Train from the first step to the last, and save a checkpoint before the last."""
        state, control = self.state, self.control
        self.handler.on_train_begin(self.args, state, control)
        self.handler.on_epoch_begin(self.args, state, control)
        steps = range(state.global_step + 1, state.max_steps + 1)
        for state.global_step in steps:
            self.log(loss=1 / state.global_step, grad_norm=0.3, learning_rate=1e-4)
            if state.global_step == state.max_steps - 1:
                self.handler.on_save(self.args, state, control, checkpoint_dir=None)
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
        passes: list[Path] = []

        def counted(path: Path, offset: int = 0) -> Iterator[Record]:
            passes.extend([path] if offset == 0 else [])
            return read(path, offset)

        history.read = counted
        resumed = Run(f"{folder}/long", options.steps, at=options.steps - 1)
        resumed.callback.load_state_dict(long.callback.state_dict())
        resumed.train()
    rows = [
        ("a log", shown(first), shown(last), f"{last / first:.2f}"),
        ("an evaluation", shown(after_short), shown(after_long), f"{after_long / after_short:.2f}"),
    ]
    print_table(f"A run of {options.steps:,} steps", ("", "early", "late", "ratio"), rows)
    print(f"A resume parses the journal {len(passes)} time(s) from its start.")
    targets.note(f"a log at most {RATIO} times", last <= RATIO * first)
    targets.note(f"an evaluation at most {RATIO} times", after_long <= RATIO * after_short)
    targets.note("a resume parses the journal once", len(passes) == 1)
    targets.leave()


if __name__ == "__main__":
    main()
