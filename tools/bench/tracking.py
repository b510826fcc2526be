"""Measure what trackers cost a training, including trackers that are slow or hang.

    python tools/bench/tracking.py [--check]

There are three targets:

- Writing five values to the journal costs the training's thread at most 30 µs.
- 2,000 steps of about 1 ms, each logged, take at most 1.05 times as long as without a tracker. The
  trackers take 200 ms per call, or hang when they open.
- The end of that training waits at most once for the flush limit.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter, sleep, thread_time
from typing import Any, Final

from table import Targets, checks, print_table, shown

from callback_core import (
    CallbackHandler,
    DefaultFlowCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)
from callback_core.tracking import Opening, Point, Status, Tracker, TrackerCallback

RECORD_TARGET: Final = 30e-6
RATIO: Final = 1.05
STEPS: Final = 2000
STEP: Final = 1e-3
REPEATS: Final = 5
FLUSH_LIMIT: Final = 2.0
DELAY: Final = 0.2


class Nowhere(Tracker):
    """A slow tracker that stores nothing.

    Args:
        delay: Seconds that each call takes.
        hangs: Whether it hangs when it opens.
    """

    name = "nowhere"

    def __init__(self, delay: float = 0.0, hangs: bool = False) -> None:
        self.delay, self.hangs = delay, hangs

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"delay": self.delay, "hangs": self.hangs}

    def open(self, opening: Opening) -> str:
        """Wait."""
        sleep(10_000 if self.hangs else self.delay)
        return "run"

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Wait."""
        sleep(self.delay)

    def log_metrics(self, points: Sequence[Point]) -> None:
        """Wait."""
        sleep(self.delay)

    def close(self, status: Status | None) -> None:
        """Wait."""
        sleep(self.delay)


class Arguments:
    """The arguments of a training, as far as trackers read them."""

    run_name = None

    def __init__(self, output_dir: str) -> None:
        self.output_dir = output_dir

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"output_dir": self.output_dir}


class Training:
    """A hand-written training that logs five values at each step.

    Args:
        callback: The callback to measure, if any.
        work: The work of a step.
    """

    def __init__(self, callback: TrainerCallback | None, work: Callable[[], None]) -> None:
        callbacks = [DefaultFlowCallback(), *filter(None, [callback])]
        self.handler = CallbackHandler(callbacks, None, None, None, None)
        self.work = work
        self.logging: list[float] = []

    def run(self) -> tuple[float, float]:
        """Train, and return the seconds of the steps and the seconds of the end."""
        state, control = TrainerState(max_steps=STEPS), TrainerControl()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            args = Arguments(directory)
            begun = perf_counter()
            self.handler.on_train_begin(args, state, control)
            self.handler.on_epoch_begin(args, state, control)
            for state.global_step in range(1, STEPS + 1):
                self.work()
                state.epoch = state.global_step / STEPS
                logs = {"loss": 1 / state.global_step, "grad_norm": 0.3, "learning_rate": 1e-4}
                logs |= {"accuracy": 0.9, "epoch": state.epoch}
                before = perf_counter()
                self.handler.on_log(args, state, control, logs=logs)
                self.logging.append(perf_counter() - before)
            trained = perf_counter()
            self.handler.on_train_end(args, state, control)
            return trained - begun, perf_counter() - trained


def sent_to(tracker: Tracker) -> TrackerCallback:
    """Return a callback that sends to `tracker`."""
    return TrackerCallback(tracker, flush_limit=FLUSH_LIMIT)


def work_of(seconds: float) -> Callable[[], None]:
    """Return a function that keeps Python busy for about this long, without waiting."""
    block = b"x" * 1024  # hashing less than 2 KiB does not release the interpreter's lock

    def work(rounds: int) -> None:
        for _ in range(rounds):
            hashlib.sha256(block)

    begun = thread_time()  # does not count other load
    work(10_000)
    rounds = max(1, round(seconds / (thread_time() - begun) * 10_000))
    return lambda: work(rounds)


def measure_record(targets: Targets) -> None:
    """Measure what a log costs the training's thread while a tracker is delivered to."""
    rows, worst = [], 0.0
    work = work_of(STEP)
    for name, tracker in (("at once", Nowhere()), ("200 ms a call", Nowhere(DELAY))):
        costs, tails = [], []
        for _ in range(REPEATS):
            bare, tracked = Training(None, work), Training(sent_to(tracker), work)
            for training in (bare, tracked):
                training.run()
            costs.append(median(tracked.logging) - median(bare.logging))
            tails.append(sorted(tracked.logging)[round(0.99 * STEPS)])
        cost, tail = min(costs), min(tails)  # other load can only add time
        rows.append((name, shown(cost), shown(tail)))
        worst = max(worst, cost)
    print_table("A record of five values", ("tracker takes", "median", "99 of 100 below"), rows)
    targets.note(f"at most {shown(RECORD_TARGET)}", worst <= RECORD_TARGET)


def measure_training(targets: Targets) -> None:
    """Compare trainings with a slow tracker, with a hanging tracker and without a tracker."""
    work = work_of(STEP)
    sides = {
        "none": lambda: None,
        f"{DELAY * 1000:.0f} ms a call": lambda: sent_to(Nowhere(DELAY)),
        "hangs when opened": lambda: sent_to(Nowhere(hangs=True)),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, callback in sides.items():
            taken[name].append(Training(callback(), work).run())
    steps = {name: median(times[0] for times in taken[name]) for name in sides}
    ends = {name: median(times[1] for times in taken[name]) for name in sides}
    rows = [
        (name, shown(steps[name]), f"{steps[name] / steps['none']:.3f}", shown(ends[name]))
        for name in sides
    ]
    print_table(f"{STEPS} steps, each logged", ("tracker", "steps", "ratio", "end"), rows)
    worst = max(steps.values()) / steps["none"]
    targets.note(f"at most {RATIO} times as long as without a tracker", worst <= RATIO)
    targets.note(
        f"the end waits at most once for the flush limit of {FLUSH_LIMIT:g} s",
        max(ends.values()) <= FLUSH_LIMIT + 0.5,
    )


def main() -> None:
    """Measure both, and print the results."""
    checks()  # reject a wrong command line before the measurement
    logging.disable(logging.WARNING)
    targets = Targets()
    measure_record(targets)
    measure_training(targets)
    targets.leave()


if __name__ == "__main__":
    main()
