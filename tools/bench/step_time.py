"""Compare the time of an update step with that of a hand-written loop and of transformers.

    python tools/bench/step_time.py [--check]

All three train the same small model on the same data with fused AdamW, a linear schedule, clipping
and torch's DataLoader. Ours and transformers have their default callbacks. The target: a step takes
at most 1.05 times as long as that of the hand-written loop. Times are those of the processor,
because other load on the machine affects them less.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from statistics import median
from time import process_time
from types import ModuleType
from typing import Any, Final

import torch
import transformers
from table import Targets, checks, print_table, shown
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, RandomSampler

import callback_core
import trainer_torch

BATCH: Final = 32
STEPS: Final = 600
FIRST: Final = 100
"""The steps before this one are not measured."""

REPEATS: Final = 9
RATIO: Final = 1.05


class Model(nn.Module):
    """Two layers, from 64 numbers to 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and the scores of a batch."""
        scores = self.layers(x)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


class Data(Dataset[dict[str, Tensor]]):
    """Random samples, the same each time."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(BATCH * STEPS, 64, generator=generator)
        self.labels = torch.randint(10, (BATCH * STEPS,), generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}


def by_hand() -> float:
    """Train with a loop that does nothing else; return the seconds of a step."""
    torch.manual_seed(0)
    model = Model()
    optimizer = AdamW(model.parameters(), lr=5e-5, weight_decay=0.0, fused=True)
    schedule = LambdaLR(optimizer, lambda step: (STEPS - step) / STEPS)
    data = Data()
    total, began = torch.zeros(()), 0.0
    for step, batch in enumerate(DataLoader(data, BATCH, sampler=RandomSampler(data))):
        if step == FIRST:
            began = process_time()
        loss = model(**batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.detach()
    return (process_time() - began) / (STEPS - FIRST)


def by(module: ModuleType, base: type, **arguments: Any) -> Callable[[], float]:
    """Return a function that trains with the Trainer of `module`, and returns a step's seconds."""

    class Clock(base):  # type: ignore[misc]
        """Notes when the measured steps begin and end."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == FIRST:
                self.began = process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == STEPS:
                self.ended = process_time()

    def train() -> float:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            args = module.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                max_steps=STEPS,
                save_strategy="no",
                report_to="none",
                use_cpu=True,
                **arguments,
            )
            clock = Clock()
            trainer = module.Trainer(Model(), args, train_dataset=Data(), callbacks=[clock])
            trainer.train()
        return (clock.ended - clock.began) / (STEPS - FIRST)

    return train


def main() -> None:
    """Measure in turns, and print the results."""
    checks()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    sides = {
        "by hand": by_hand,
        "ours": by(trainer_torch, callback_core.TrainerCallback),
        "transformers": by(transformers, transformers.TrainerCallback, remove_unused_columns=False),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, train in sides.items():
            taken[name].append(train())
    by_hand_takes = taken["by hand"]
    ratios = {
        name: median(one / hand for one, hand in zip(times, by_hand_takes, strict=True))
        for name, times in taken.items()
    }
    print_table(
        "An update step of a small model",
        ("loop", "time", "ratio"),
        [(name, shown(min(taken[name])), f"{ratio:.2f}") for name, ratio in ratios.items()],
    )
    targets = Targets()
    targets.note(f"at most {RATIO} times the hand-written loop", ratios["ours"] <= RATIO)
    targets.leave()


if __name__ == "__main__":
    main()
