"""Count how often a training waits for the GPU between two logs.

    python tools/bench/synchronization.py [--check] [--quick]

The target is 0, for each kind of training. Two counts are made, each from a log up to the next one:
torch warns of what waits (`torch.cuda.set_sync_debug_mode`), and in another interval torch's
profiler records the calls of CUDA that wait and the copies to the host. With float16, each step
waits, because `GradScaler` reads whether gradients have overflowed; so that is not among them.

On a machine without a GPU, there is nothing to count. That only shows that the script works.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from callbacks import SIZE
from small import ON_DEVICE, Language, Words
from table import Targets, checks, is_quick, print_table
from torch.profiler import ProfilerActivity, profile, record_function

from callback_core import TrainerCallback
from trainer_torch import (
    LoopCallback,
    ThroughputCallback,
    Trainer,
    TrainingArguments,
    WeightAveragingCallback,
)

EVERY: Final = 8 if ON_DEVICE else 2
"""The number of steps between two logs."""

BEGIN, END = "the interval begins", "the interval ends"
WAITS: Final = {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"}


class Intervals(TrainerCallback):
    """Watches one interval between two logs by torch's warnings, and the next by its profiler.

    It has to be the last callback, so that the work of the others is in the interval.
    """

    def __init__(self) -> None:
        self.profiler = profile(
            activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * ON_DEVICE]
        )

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin."""
        if state.global_step == 2 * EVERY and ON_DEVICE:
            torch.cuda.set_sync_debug_mode("warn")
        elif state.global_step == 3 * EVERY:
            self.profiler.start()
            mark(BEGIN)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End, before the loop logs."""
        if state.global_step == 3 * EVERY and ON_DEVICE:
            torch.cuda.set_sync_debug_mode("default")
        elif state.global_step == 4 * EVERY:
            mark(END)
            self.profiler.stop()


def mark(name: str) -> None:
    """Put a mark into the profile."""
    with record_function(name):
        pass


def waits_in(events: Iterable[Any]) -> Counter[str]:
    """Return the calls between the marks that wait for the GPU, and the copies that do."""
    begins = {event.name: event.time_range.start for event in events if event.name in (BEGIN, END)}
    return Counter(
        event.name
        for event in events
        if begins[BEGIN] < event.time_range.start < begins[END]
        and (event.name in WAITS or "DtoH" in event.name or "Pageable" in event.name)
    )


@contextmanager
def caught_waits() -> Iterator[Counter[str]]:
    """Count torch's warnings that a line of code waits, by line."""
    found: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield found
    for one in caught:
        if "called a synchronizing" in str(one.message):
            found[f"{one.filename}:{one.lineno}"] += 1


def count(*callbacks: Any, **changed: Any) -> tuple[Counter[str], Counter[str]]:
    """Train, and return what torch warned of, and what its profiler found."""
    intervals = Intervals()
    with TemporaryDirectory() as directory, caught_waits() as warned:
        args = TrainingArguments(
            directory,
            per_device_train_batch_size=SIZE.batch,
            max_steps=5 * EVERY,
            logging_steps=EVERY,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **changed,
        )
        made, data = [*callbacks, intervals], Words(SIZE, 5 * EVERY * SIZE.batch)
        trainer = Trainer(Language(SIZE), args, train_dataset=data, callbacks=made)
        trainer.pop_callback(trainer.callback_handler.callbacks[-1])  # prints
        trainer.train()
    return warned, waits_in(intervals.profiler.events())


def main() -> None:
    """Count for each kind of training, and print the results."""
    checks()  # reject a wrong command line before the measurement
    logging.disable(logging.WARNING)
    kinds: dict[str, tuple[list[LoopCallback], dict[str, Any]]] = {
        "float32": ([], {}),
        "bf16": ([], {"bf16": True}),
        "bf16, compiled": ([], {"bf16": True, "torch_compile": True}),
        "accumulation": ([], {"bf16": True, "gradient_accumulation_steps": 2}),
        "workers": ([], {"bf16": True, "dataloader_num_workers": 2}),
        "not clipped": ([], {"bf16": True, "max_grad_norm": 0.0}),
        "checkpointed": ([], {"bf16": True, "activation_checkpointing": True}),
        "skips": ([], {"bf16": True, "on_non_finite": "skip"}),
        "counts tokens": ([], {"bf16": True, "include_num_input_tokens_seen": "all"}),
        "ThroughputCallback": ([ThroughputCallback()], {"bf16": True}),
        "WeightAveragingCallback": ([WeightAveragingCallback()], {"bf16": True}),
    }
    if is_quick():  # compiling takes longer than all the others
        del kinds["bf16, compiled"]
    targets, rows, sites = Targets(), [], []
    for name, (callbacks, changed) in kinds.items():
        warned, profiled = count(*callbacks, **changed)
        rows.append((name, str(warned.total()), str(profiled.total())))
        sites += [f"  {name}: {times} at {what}" for what, times in (warned + profiled).items()]
    print_table(f"Waits in {EVERY} steps", ("training", "warnings", "in the profile"), rows)
    print("\n".join(sites))
    waiting = [name for name, *counts in rows if counts != ["0", "0"]]
    if ON_DEVICE:
        targets.note(f"no waits between logs; {', '.join(waiting) or 'none'} waits", not waiting)
    targets.leave()


if __name__ == "__main__":
    main()
