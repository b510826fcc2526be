"""Compare the time of an update step with that of a hand-written loop and of transformers.

    python tools/bench/step_time.py [--check]

All three train the same model on the same data with fused AdamW, a linear schedule, clipping and
torch's DataLoader. Ours and transformers have their default callbacks. One model has next to
nothing to compute, so that the costs of the loop show; a step of the other takes some milliseconds.
There is a target for each.

A Trainer and the loop by hand take turns of some steps in one process, and each ratio is that of
neighbours, so that other load on the machine affects both. Times are those of the processor.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from time import process_time
from types import ModuleType
from typing import Any, Final, NamedTuple

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the processor's time is measured

import torch
import transformers
from small import Language, Points, Size, Tiny, Words, train_by_hand
from table import Targets, checks, print_table, shown
from torch import nn
from torch.utils.data import Dataset

import callback_core
import trainer_torch

TURNS: Final = 61
"""The first turn of each side does not count."""

SIZE: Final = Size(width=64, layers=2, length=32, batch=8, words=256)


class Case(NamedTuple):
    """A model to train, and the most that a step of ours may take, compared to the loop by hand.

    Attributes:
        name: What it is.
        make: Returns a new model.
        data: Returns that many samples.
        batch: The number of samples in a batch.
        turn: The number of steps in a turn.
        ratio: The target.
    """

    name: str
    make: Callable[[], nn.Module]
    data: Callable[[int], Dataset[Any]]
    batch: int
    turn: int
    ratio: float


CASES: Final = (
    Case("next to nothing", Tiny, Points, 32, turn=50, ratio=1.35),
    Case("two blocks", lambda: Language(SIZE), lambda n: Words(SIZE, n), 8, turn=10, ratio=1.05),
)


class Taken(NamedTuple):
    """The seconds of a step in each turn: of a Trainer, and of the loop by hand beside it."""

    trainer: list[float]
    by_hand: list[float]

    @property
    def ratio(self) -> float:
        """The Trainer's time in those of the loop by hand."""
        return median(a / b for a, b in zip(self.trainer, self.by_hand, strict=True))


def measure(module: ModuleType, base: type, case: Case, **arguments: Any) -> Taken:
    """Train with the Trainer of `module` and by hand in turns.

    Args:
        module: What has `Trainer` and `TrainingArguments`.
        base: The base class of its callbacks.
        case: What to train.
        arguments: Further arguments of the Trainer.
    """
    steps, taken = TURNS * case.turn, Taken([], [])
    data = case.data(steps * case.batch)
    hand = train_by_hand(case.make(), data, case.batch, steps)

    class TakesTurns(base):  # type: ignore[misc]
        """Lets the loop by hand take its turn after each of the Trainer's."""

        began = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % case.turn:
                return
            ended = process_time()
            for _ in range(case.turn):
                next(hand)
            by_hand = process_time() - ended
            if state.global_step > case.turn:
                taken.trainer.append((ended - self.began) / case.turn)
                taken.by_hand.append(by_hand / case.turn)
            self.began = process_time()

    with tempfile.TemporaryDirectory() as folder:
        args = module.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=case.batch,
            max_steps=steps,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            **arguments,
        )
        module.Trainer(case.make(), args, train_dataset=data, callbacks=[TakesTurns()]).train()
    return taken


def main() -> None:
    """Measure, and print the results."""
    checks()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    targets = Targets()
    for case in CASES:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            ours = measure(trainer_torch, callback_core.TrainerCallback, case)
            theirs = measure(
                transformers, transformers.TrainerCallback, case, remove_unused_columns=False
            )
        rows = [("by hand", shown(median(ours.by_hand)), "1.00")]
        for name, taken in (("ours", ours), ("transformers", theirs)):
            rows.append((name, shown(median(taken.trainer)), f"{taken.ratio:.2f}"))
        print_table(f"An update step of {case.name}", ("loop", "time", "ratio"), rows)
        targets.note(f"at most {case.ratio} times the hand-written loop", ours.ratio <= case.ratio)
    targets.leave()


if __name__ == "__main__":
    main()
