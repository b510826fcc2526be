"""Measure how much time a checkpoint costs the training: synchronously, and with `save_async`.

    OMP_NUM_THREADS=1 python tools/bench/save_async.py [--megabytes 200] [--saves 5]

A model of one large layer is trained by Adam, and saved again and again, first synchronously and
then with `save_async`. The *lost time* of a save is that of the steps until the next save, beyond
what as many steps without a save take. The processor time is that of the training's thread: it
shows what the training itself had to do, even if the machine does other work. The steps during
which a checkpoint is written are compared with those before the save. Each figure is a median.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import TensorDataset

from callback_core import TrainerCallback
from trainer_torch import Trainer, TrainingArguments

QUIET = 6
"""The steps between two saves that are not measured as part of a save."""


class Step(NamedTuple):
    """From the start of a step to the start of the next one.

    Attributes:
        wall: The seconds.
        processor: The seconds of processor time of the training's thread.
        saves: Whether a save began in it.
        is_writing: Whether a checkpoint was being written during all of it.
    """

    wall: float
    processor: float
    saves: bool
    is_writing: bool


class Wide(nn.Module):
    """A layer of `width` x `width` weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width, bias=False)

    def forward(self, features: Any) -> Any:
        """Return the layer's output."""
        return self.layer(features)


class Measures(TrainerCallback):
    """Asks for a save whenever the last one has ended some steps ago, and measures all steps."""

    def __init__(self, saves: int) -> None:
        self.left = saves
        self.steps: list[Step] = []
        self.trainer: Any = None
        self._began: tuple[float, float] | None = None
        self._quiet = 0
        self._was_writing = self._saves = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End the measurement of the step before."""
        now = time.perf_counter(), time.thread_time()
        is_writing = self.trainer.run.saves.is_writing
        if self._began is not None:
            wall, processor = (one - before for one, before in zip(now, self._began, strict=True))
            step = Step(wall, processor, self._saves, self._was_writing and is_writing)
            self.steps.append(step)
        self._began, self._was_writing = now, is_writing
        self._quiet = 0 if self.trainer.run.saves.current else self._quiet + 1

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a save, or for the end."""
        self._saves = self._quiet > QUIET and self.left > 0
        if self._saves:
            self.left -= 1
            self._quiet = 0
            control.should_save = True
        control.should_training_stop = self.left == 0 and self._quiet > QUIET


def train(megabytes: int, saves: int, save_async: bool) -> list[Step]:
    """Return the steps of a training with so many saves, of a checkpoint of about this size."""
    width = int((megabytes * 1e6 / 12) ** 0.5)  # Adam keeps two numbers for each weight
    measures = Measures(saves)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            per_device_train_batch_size=16,
            max_steps=100_000,
            logging_strategy="no",
            save_strategy="no",
            save_total_limit=1,
            save_async=save_async,
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Trainer(
            Wide(width),
            args,
            None,
            TensorDataset(torch.randn(256, width)),
            compute_loss=lambda model, batch: model(batch[0]).square().mean(),
            callbacks=[measures],
        )
        measures.trainer = trainer
        trainer.train()
        size = sum(path.stat().st_size for path in Path(folder).rglob("checkpoint-*/*"))
        print(f"save_async={save_async}: {len(measures.steps)} steps, {size / 1e6:.0f} MB")
    return measures.steps[2:]


def lost_times(steps: list[Step], of: Callable[[Step], float]) -> list[float]:
    """Return for each save the time lost to it, by `of`."""
    begins = [number for number, step in enumerate(steps) if step.saves]
    quiet = statistics.median(of(step) for step in steps if not step.saves and not step.is_writing)
    found = []
    for begin, end in zip(begins, [*begins[1:], len(steps)], strict=True):
        cycle = steps[begin:end]
        found.append(sum(of(step) for step in cycle) - quiet * len(cycle))
    return found


def main() -> None:
    """Measure both, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200, help="of a checkpoint (default: 200)")
    parser.add_argument("--saves", type=int, default=5, help="of each kind (default: 5)")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    kinds: dict[str, Callable[[Step], float]] = {
        "wall": lambda step: step.wall,
        "processor": lambda step: step.processor,
    }
    rows = {}
    for save_async in (False, True):
        steps = train(options.megabytes, options.saves, save_async)
        for kind, of in kinds.items():
            quiet = [of(one) for one in steps if not one.saves and not one.is_writing]
            writing = [of(one) for one in steps if one.is_writing and not one.saves]
            lost = statistics.median(lost_times(steps, of))
            before = statistics.median(quiet)
            during = statistics.median(writing) / before if writing else None
            rows[save_async, kind] = lost, before, during, len(writing)
    print("| time | step | synchronous save | save_async | ratio | step while writing |")
    print("|---|--:|--:|--:|--:|--:|")
    for kind in kinds:
        synchronous, later = rows[False, kind], rows[True, kind]
        during = f"{later[2]:.2f} of before ({later[3]} steps)" if later[2] else "no full step"
        print(
            f"| {kind} | {later[1] * 1e3:.0f} ms | {synchronous[0] * 1e3:.0f} ms "
            f"| {later[0] * 1e3:.0f} ms | {later[0] / synchronous[0]:.2f} | {during} |"
        )


if __name__ == "__main__":
    main()
