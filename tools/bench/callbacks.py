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
from table import Targets, checks, is_quick, print_table, shown
from torch import Tensor, nn

from callback_core import TimeLimit, TrainerCallback
from trainer_torch import (
    ProfilerCallback,
    ThroughputCallback,
    Trainer,
    TrainingArguments,
    WeightAveragingCallback,
)

ON_GPU: Final = torch.cuda.is_available()
WIDTH, LAYERS, LENGTH, BATCH = (512, 8, 256, 16) if ON_GPU else (128, 4, 64, 8)
WORDS: Final = 1000
STEPS: Final = 30 if is_quick() else 110
REPEATS: Final = 3 if ON_GPU else 7

LOOP_RATIO: Final = 1.05
WATCHING_RATIO: Final = 1.01
AVERAGING_RATIO: Final = 1.05


class Language(nn.Module):
    """A transformer over words: input_ids (batch, length) to a loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, input_ids: Tensor) -> dict[str, Tensor]:
        """Return the loss."""
        scores = self.head(self.layers(self.words(input_ids)))
        return {"loss": nn.functional.cross_entropy(scores.flatten(0, 1), input_ids.flatten())}


class Words(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Random words."""

    def __init__(self) -> None:
        self.words = torch.randint(WORDS, (BATCH * STEPS, LENGTH))

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.words[index]}


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
    if ON_GPU:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def by_trainer(*callbacks: Callable[[], Any], **changed: Any) -> float:
    """Return the seconds that a step of the Trainer takes."""
    watch = Watch()
    with TemporaryDirectory() as directory:
        args = TrainingArguments(
            directory,
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **changed,
        )
        made = [make() for make in callbacks]
        trainer = Trainer(Language(), args, train_dataset=Words(), callbacks=[*made, watch])
        trainer.pop_callback(trainer.callback_handler.callbacks[-1])  # prints
        trainer.train()
    return watch.seconds / (STEPS - 10)


def by_hand() -> float:
    """Return the seconds that a step of a loop takes that is written by hand."""
    device = torch.device("cuda" if ON_GPU else "cpu")
    model = Language().to(device)
    decayed = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim <= 1]
    groups = [{"params": decayed}, {"params": others}]
    optimizer = torch.optim.AdamW(groups, lr=5e-5, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    loader = torch.utils.data.DataLoader(Words(), BATCH, shuffle=True, pin_memory=ON_GPU)
    total, seconds = torch.zeros((), device=device), 0.0
    for step, batch in enumerate(loader, start=1):
        batch = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        loss = model(**batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.detach()
        if step % 10 == 0:
            total.item()
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
