"""A training that kills itself: `training_to_kill.py KIND DIRECTORY STEP`, 0 for never.

It writes how it ended to `result.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small import arguments, compute_loss, data, net
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from callback_core import TrainerCallback
from trainer_torch import Trainer, WeightAveragingCallback
from trainer_torch.checkpoint import list_checkpoints
from trainer_torch.testing import At

SAMPLES = 26


def sample(index: int) -> tuple[Tensor, int]:
    return torch.randn(4, generator=torch.Generator().manual_seed(index)), index % 3


class Plain(Dataset[Any]):
    """The samples as they are."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        return sample(index)


class Augmented(Plain):
    """The samples with noise from each generator."""

    def __getitem__(self, index: int) -> Any:
        features, label = sample(index)
        return features + 0.1 * torch.randn(4) + random.random() + np.random.rand(), label


class Stream(IterableDataset[Any]):
    """The samples with noise, from a position that is its state."""

    def __init__(self) -> None:
        self.position = 0

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        share = range(worker.id, SAMPLES, worker.num_workers) if worker else range(SAMPLES)
        while self.position < len(share):
            self.position += 1
            yield Augmented()[share[self.position - 1]]
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Own(Trainer):
    """Has a data loader of its own."""

    def get_train_dataloader(self) -> Any:
        return DataLoader(Augmented(), batch_size=4, shuffle=True, num_workers=2)


class Overflows(Trainer):
    """Has gradients that overflow in some steps."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(*args, **kwargs)
        return loss * 1e38 if self.state.global_step in (2, 3, 6) else loss


class Draws(TrainerCallback):
    """Sums up random numbers in a state."""

    def __init__(self) -> None:
        self.sum = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sum += random.random()

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self.sum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sum = state["sum"]


KINDS: dict[str, Any] = {
    "plain": (Trainer, Plain, {}),
    "augmentation in workers": (Trainer, Augmented, {"dataloader_num_workers": 2}),
    "persistent workers": (
        Trainer,
        Augmented,
        {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    ),
    "stream": (Trainer, Stream, {}),
    "stream in workers": (Trainer, Stream, {"dataloader_num_workers": 2}),
    "fp16 with overflows": (Overflows, Augmented, {"fp16": True}),
    "averaged weights": (Trainer, Augmented, {"eval_strategy": "epoch"}),
    "accumulation": (Trainer, Augmented, {"gradient_accumulation_steps": 2}),
    "own loader": (Own, Augmented, {}),
}
"""The class of the trainer, that of the data, and the arguments of each kind of training."""


def digest(path: Path) -> str:
    """Return the digest of what a file of a checkpoint holds, but for the directory's name.

    Files of torch are loaded, because the same values are written in several ways.
    """
    if path.suffix in (".pt", ".pth"):
        loaded = torch.load(path, weights_only=True)
        plain = json.dumps(
            loaded, sort_keys=True, default=lambda one: [str(one.dtype), one.tolist()]
        )
        content = plain.encode()
    else:
        content = path.read_bytes().replace(str(path.parents[1]).encode(), b"")
    return hashlib.sha256(content).hexdigest()


def train(kind: str, directory: Path, *callbacks: Any, on_accelerator: bool = False) -> None:
    """Train, from the newest checkpoint if there is one, and write how it ended.

    Of the last checkpoint, it writes digests of the files that have no measured times.
    """
    cls, dataset, given = KINDS[kind]
    if on_accelerator:
        given = {**given, "use_cpu": False, "full_determinism": True}
    args = arguments(directory, save_strategy="steps", save_steps=1, **given)
    averaging = [WeightAveragingCallback(0.9)] if kind == "averaged weights" else []
    trainer = cls(
        net(),
        args,
        train_dataset=dataset(),
        eval_dataset=data(9),
        compute_loss=compute_loss,
        callbacks=[*averaging, Draws(), *callbacks],
    )
    trainer.train(resume_from_checkpoint=bool(list_checkpoints(directory)))
    last = list_checkpoints(directory)[-1]
    measured = ("runtime", "_per_second")
    result = {
        "weights": [value.tolist() for value in trainer.model.state_dict().values()],
        "history": [
            {name: value for name, value in entry.items() if not name.endswith(measured)}
            for entry in trainer.state.log_history
        ],
        "callbacks": trainer.state.stateful_callbacks,
        "precision": trainer.run.precision.state_dict(),
        "checkpoint": {
            path.name: digest(path)
            for path in sorted(last.iterdir())
            if path.name not in ("trainer_state.json", "manifest.json")
        },
    }
    (directory / "result.json").write_text(json.dumps(result, indent=1, sort_keys=True))


if __name__ == "__main__":
    step = int(sys.argv[3])
    train(sys.argv[1], Path(sys.argv[2]), At(step, lambda: os.kill(os.getpid(), signal.SIGKILL)))
