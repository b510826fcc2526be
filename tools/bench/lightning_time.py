"""Step time of Lightning's Trainer with a tracker that hangs, as a ratio to that without one.

`lightning_time.py [STEPS] [REPETITIONS]`, in an environment with callback-lightning. Trainings with
and without the tracker alternate. Of the times of all steps, the first quartile counts, so that
other programs disturb little. All log each step. It prints the ratios to `CSVLogger`.
"""

import logging
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from callback_core.tracking import Limits, Tracker, TrackerCallback
from callback_lightning import LightningCallbacks, TrackerLogger

STEPS, REPETITIONS = 300, 5


class Hanging(Tracker):
    """Opens its run, and never returns from the first log."""

    name = "hanging"
    limits = Limits(deliver_every=0.01)

    def open(self, opening: Any) -> str:
        """Open a run."""
        return "run"

    def log_parameters(self, parameters: Any) -> None:
        """Keep nothing."""

    def log_metrics(self, points: Any) -> None:
        """Hang."""
        threading.Event().wait()

    def close(self, status: Any) -> None:
        """Close nothing."""


class Module(LightningModule):
    """A network whose step takes some milliseconds, as a small one does."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(6)))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """Return and log the loss."""
        loss = self.layers(batch).square().mean()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


def seconds(root: Path, steps: int, **options: Any) -> list[float]:
    """Return the seconds that each step of a training took, but the first ten."""
    rows = torch.rand(64 * steps, 512)
    loader: Any = torch.utils.data.DataLoader(rows, batch_size=64)  # type: ignore[arg-type]
    times: list[float] = []
    module = Module()
    module.on_train_batch_start = lambda *_: times.append(time.perf_counter())  # type: ignore
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=root,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        log_every_n_steps=1,
        max_epochs=1,
        **options,
    )
    trainer.fit(module, loader)
    return [after - before for before, after in pairwise(times[10:])]


def main(steps: int, repetitions: int) -> None:
    """Measure, and print the ratios."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)

    def hanging() -> TrackerCallback:
        return TrackerCallback(Hanging(), flush_limit=0.1)

    ways = {
        "CSVLogger": lambda root: {"logger": CSVLogger(root)},
        "LightningCallbacks": lambda root: {
            "logger": CSVLogger(root),
            "callbacks": [LightningCallbacks([hanging()])],
        },
        "TrackerLogger": lambda root: {"logger": [CSVLogger(root), TrackerLogger(hanging())]},
        "TrackerLogger alone": lambda root: {"logger": TrackerLogger(hanging())},
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    order = list(ways.items())
    for _ in range(repetitions):
        order.reverse()
        for name, options in order:
            with tempfile.TemporaryDirectory() as folder:
                times[name] += seconds(Path(folder), steps, **options(Path(folder)))
    quartiles = {name: quantiles(found, n=4)[0] for name, found in times.items()}
    for name, found in quartiles.items():
        ratio = found / quartiles["CSVLogger"]
        print(f"{name}: {1e3 * found:.2f} ms a step, ratio {ratio:.3f}")


if __name__ == "__main__":
    given = [int(one) for one in sys.argv[1:]]
    main(*given, *(STEPS, REPETITIONS)[len(given) :])
