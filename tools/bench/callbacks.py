"""Measure what the Trainer and its callbacks add to an update step of a small language model.

    python tools/bench/callbacks.py [--check] [--quick]

There are three targets. With its default callbacks, the Trainer takes at most 1.05 times as long
as a loop by hand. A callback that watches adds at most 1 % to a step, and averaging at most 5 %.

On the CPU, times are those of the process, which does not count other load. On a GPU they are those
of a clock. Each training logs every ten steps. The steps before the first log do not count.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from small import DEVICE, ON_DEVICE, Language, Size, Words, train_by_hand
from table import Targets, checks, is_quick, print_table, shown

from callback_core import TimeLimit, TrainerCallback
from trainer_torch import (
    ProfilerCallback,
    ThroughputCallback,
    Trainer,
    TrainingArguments,
    WeightAveragingCallback,
)

ON_CPU: Final = (
    Size(width=32, layers=2, length=16, batch=2, words=100)
    if is_quick()
    else Size(width=128, layers=4, length=64, batch=8, words=1000)
)
SIZE: Final = Size(512, 8, 256, 16, 1000) if ON_DEVICE else ON_CPU
STEPS: Final = 30 if is_quick() else 110
REPEATS: Final = 3 if ON_DEVICE else 7

LOOP_RATIO: Final = 1.05
WATCHING_RATIO: Final = 1.01
AVERAGING_RATIO: Final = 1.05


class Watch(TrainerCallback):
    """Notes the time at the first log and at the end."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to measure after the first log."""
        if state.global_step == 10:
            self.seconds = -now()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the measurement."""
        self.seconds += now()


def now() -> float:
    """Return the time."""
    if ON_DEVICE:
        torch.accelerator.synchronize()
        return time.perf_counter()
    return time.process_time()


def by_trainer(*callbacks: Callable[[], Any], **changed: Any) -> float:
    """Return the seconds that a step of the Trainer takes."""
    watch = Watch()
    with TemporaryDirectory() as directory:
        args = TrainingArguments(
            directory,
            per_device_train_batch_size=SIZE.batch,
            num_train_epochs=1,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **changed,
        )
        made = [make() for make in callbacks]
        data = Words(SIZE, SIZE.batch * STEPS)
        trainer = Trainer(Language(SIZE), args, train_dataset=data, callbacks=[*made, watch])
        trainer.pop_callback(trainer.callback_handler.callbacks[-1])  # prints
        trainer.train()
    return watch.seconds / (STEPS - 10)


def by_hand() -> float:
    """Return the seconds that a step of a loop takes that is written by hand."""
    data = Words(SIZE, SIZE.batch * STEPS)
    seconds = 0.0
    for step in train_by_hand(Language(SIZE).to(DEVICE), data, SIZE.batch, STEPS):
        if step == 10:
            seconds = -now()
    return (seconds + now()) / (STEPS - 10)


def main() -> None:
    """Measure all in turns, and print the results."""
    checks()  # reject a wrong command line before the measurement
    logging.disable(logging.WARNING)
    sides: dict[str, Callable[[], float]] = {
        "a loop by hand": by_hand,
        "the Trainer": by_trainer,
        "ThroughputCallback": lambda: by_trainer(ThroughputCallback),
        "ProfilerCallback, waiting": lambda: by_trainer(lambda: ProfilerCallback(wait=10**6)),
        "TimeLimit": lambda: by_trainer(lambda: TimeLimit(10**6)),
        "tokens": lambda: by_trainer(include_num_input_tokens_seen="all"),
        "WeightAveragingCallback": lambda: by_trainer(WeightAveragingCallback),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(1 if is_quick() else REPEATS):
        for name, side in sides.items():
            taken[name].append(side())
    # Each ratio is that of neighbours in time, so that a slow phase of the machine affects both.
    trainer = taken["the Trainer"]
    loop = median(a / b for a, b in zip(trainer, taken["a loop by hand"], strict=True))
    ratios = {
        name: median(a / b for a, b in zip(times, trainer, strict=True))
        for name, times in taken.items()
    }
    rows = [(name, shown(median(times)), f"{ratios[name]:.3f}") for name, times in taken.items()]
    print_table("An update step", ("with", "time", "to the Trainer's"), rows)
    targets = Targets()
    targets.note(f"the Trainer: {loop:.3f}, at most {LOOP_RATIO} of a loop", loop <= LOOP_RATIO)
    watching = max(list(ratios.values())[2:-1])
    targets.note(f"what watches: at most {WATCHING_RATIO}", watching <= WATCHING_RATIO)
    averaging = ratios["WeightAveragingCallback"]
    targets.note(f"averaging: at most {AVERAGING_RATIO}", averaging <= AVERAGING_RATIO)
    targets.leave()


if __name__ == "__main__":
    main()
