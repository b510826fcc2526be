"""Compare what `ThroughputCallback` logs with a stopwatch and with torch's own counters.

    python tools/bench/throughput.py [--check]

The targets: tokens per second are within 2 % of a stopwatch; operations are those of torch's
`FlopCounterMode`; the peak of a GPU's memory is torch's; and no step waits for the GPU. On the
CPU, the last two are not measured. The model is that of `callbacks.py`.
"""

from __future__ import annotations

import logging
import time
import warnings
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from callbacks import SIZE, STEPS
from small import ON_DEVICE, Language, Words
from table import Targets, checks, print_table
from torch.utils.flop_counter import FlopCounterMode

from callback_core import TrainerCallback
from trainer_torch import ThroughputCallback, Trainer, TrainingArguments

EVERY: Final = 10
"""The number of steps between two logs."""


class Stopwatch(TrainerCallback):
    """Takes the time from log to log, and counts how often a step waits for the GPU."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.last: float | None = None
        self.waits = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start watching."""
        if self.last is None:
            self.last = time.perf_counter()
        if ON_DEVICE:
            torch.cuda.set_sync_debug_mode("warn")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop watching, because the loop logs now."""
        if ON_DEVICE:
            torch.cuda.set_sync_debug_mode("default")

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the time."""
        now = time.perf_counter()
        self.seconds.append(now - (now if self.last is None else self.last))
        self.last = now


def train(*callbacks: Any) -> tuple[Trainer, Stopwatch, int]:
    """Return a trainer that has trained, its stopwatch, and how often a step waited."""
    watch = Stopwatch()
    with TemporaryDirectory() as directory, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        args = TrainingArguments(
            directory,
            per_device_train_batch_size=SIZE.batch,
            num_train_epochs=1,
            logging_steps=EVERY,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        made = [*callbacks, watch]
        data = Words(SIZE, SIZE.batch * STEPS)
        trainer = Trainer(Language(SIZE), args, train_dataset=data, callbacks=made)
        trainer.pop_callback(trainer.callback_handler.callbacks[-1])  # prints
        trainer.train()
    return trainer, watch, sum("synchroniz" in str(one.message) for one in caught)


def main() -> None:
    """Train, and print both values of each kind."""
    checks()  # reject a wrong command line before the measurement
    logging.disable(logging.WARNING)
    targets = Targets()
    _, _, waits_without = train()
    trainer, watch, waits = train(ThroughputCallback())
    logs = [entry for entry in trainer.state.log_history if "tokens_per_second" in entry]
    tokens = EVERY * SIZE.batch * SIZE.length
    ratios = [
        entry["tokens_per_second"] * seconds / tokens
        for entry, seconds in zip(logs, watch.seconds, strict=False)
    ][1:]
    shape = SIZE.batch, SIZE.length
    words = torch.zeros(shape, dtype=torch.long, device=trainer.args.device)
    with FlopCounterMode(display=False) as counter:
        trainer.model(words, words)["loss"].backward()
    expected = counter.get_total_flops() * STEPS
    rows = [(name, f"{logs[-1][name]:.4g}") for name in logs[-1] if name in NAMES]
    print_table("The last log", ("value", ""), rows)
    worst = max(abs(ratio - 1) for ratio in ratios)
    targets.note(f"tokens per second: {worst:.2%} from a stopwatch at most", worst <= 0.02)
    print(f"  median {median(ratios):.4f}")
    targets.note("operations: those of torch's counter", trainer.state.total_flos == expected)
    if ON_DEVICE:
        peak = torch.cuda.max_memory_allocated() / 2**30
        logged = logs[-1]["peak_memory_gib"]
        targets.note(f"peak of memory: {logged:.3f} of {peak:.3f} GiB", logged > 0.9 * peak)
        # The step whose operations are counted may wait.
        targets.note(f"{waits} waits, {waits_without} without", waits <= waits_without + 2)
        targets.note("mfu is logged and below 1", 0 < logs[-1].get("mfu", 2) < 1)
    targets.leave()


NAMES: Final = (
    *("samples_per_second", "tokens_per_second", "tflops", "mfu"),
    *("peak_memory_gib", "data_wait_seconds"),
)

if __name__ == "__main__":
    main()
