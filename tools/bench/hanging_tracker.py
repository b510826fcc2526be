"""Compare the time of a step with a tracker that hangs, and without any, in three loops.

    python tools/bench/hanging_tracker.py [--check]

The loops are one written by hand with `Loop`, this repository's Trainer, and that of transformers.
Each logs at every step. The target: a step takes at most 1.05 times as long as without a tracker.
`accelerate_step.py` and `lightning_time.py` measure the other two loops.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from time import perf_counter
from types import ModuleType
from typing import Any, Final

import torch
import transformers
from small import Language, Size, Words
from table import Targets, checks, print_table, shown
from torch.optim import AdamW
from torch.utils.data import DataLoader
from tracking import FLUSH_LIMIT, Nowhere

import trainer_torch
from callback_core import Loop, TrainerCallback
from callback_core.tracking import TrackerCallback

SIZE: Final = Size(width=64, layers=2, length=32, batch=8, words=500)
STEPS: Final = 150
FIRST: Final = 30
"""The steps before this one are not measured."""

REPEATS: Final = 7
RATIO: Final = 1.05


class Clock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time, at which the log of the step before is done."""
        self.times.append(perf_counter())

    @property
    def steps(self) -> list[float]:
        """The seconds of each measured step."""
        return [after - before for before, after in pairwise(self.times)][FIRST:]


def by_hand(callbacks: list[TrainerCallback], folder: str) -> None:
    """Train in a loop written by hand."""
    model = Language(SIZE)
    optimizer = AdamW(model.parameters(), fused=True)
    batches = DataLoader(Words(SIZE, STEPS * SIZE.batch), SIZE.batch)
    args = {"output_dir": folder, "num_train_epochs": 1, "logging_steps": 1, "disable_tqdm": True}
    parts = {"model": model, "optimizer": optimizer, "train_dataloader": batches}
    with Loop(callbacks, args, **parts) as loop:
        for batch in loop.steps():
            loss = model(**batch)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loop.report(loss=loss)


def by(module: ModuleType) -> Callable[[list[TrainerCallback], str], None]:
    """Return a function that trains with the Trainer of `module`."""

    def train(callbacks: list[TrainerCallback], folder: str) -> None:
        args = module.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=SIZE.batch,
            max_steps=STEPS,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        data = Words(SIZE, STEPS * SIZE.batch)
        module.Trainer(Language(SIZE), args, train_dataset=data, callbacks=callbacks).train()

    return train


LOOPS: Final = {
    "by hand": by_hand,
    "trainer-torch": by(trainer_torch),
    "transformers": by(transformers),
}


def steps(train: Callable[[list[TrainerCallback], str], None], hangs: bool) -> list[float]:
    """Train, and return the seconds of each step."""
    clock = Clock()
    tracker = TrackerCallback(Nowhere(hangs=True), flush_limit=FLUSH_LIMIT)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        train([clock, tracker] if hangs else [clock], folder)
    return clock.steps


def main() -> None:
    """Measure, and print the results."""
    checks()  # reject a wrong command line before the measurement
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows, targets = [], Targets()
    for loop, train in LOOPS.items():
        taken: dict[bool, list[list[float]]] = {False: [], True: []}
        for _ in range(REPEATS):
            for hangs, runs in taken.items():
                runs.append(steps(train, hangs))
        # Other load can only add time, so each step counts as it was when it was fastest.
        times = {one: median(map(min, zip(*runs, strict=True))) for one, runs in taken.items()}
        ratio = times[True] / times[False]
        rows.append((loop, shown(times[False]), shown(times[True]), f"{ratio:.3f}"))
        targets.note(f"{loop}: at most {RATIO} times the time without a tracker", ratio <= RATIO)
    print_table("A step with a tracker that hangs", ("loop", "without", "with", "ratio"), rows)
    targets.leave()


if __name__ == "__main__":
    main()
