"""A training that kills itself: `training_to_kill.py KIND DIRECTORY STEP`, 0 for never."""

from __future__ import annotations

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
from small import arguments, compute_loss, net
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from callback_core import TrainerCallback
from trainer_torch import Trainer
from trainer_torch.checkpoint import list_checkpoints

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


class KillsAt(TrainerCallback):
    """Kills the process after a step, and sums up random numbers in a state."""

    def __init__(self, step: int) -> None:
        self.step, self.sum = step, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sum += random.random()
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)

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
    "accumulation": (Trainer, Augmented, {"gradient_accumulation_steps": 2}),
    "own loader": (Own, Augmented, {}),
}


def main(kind: str, directory: Path, step: int) -> None:
    trainer, dataset, changed = KINDS[kind]
    args = arguments(directory, save_strategy="steps", save_steps=1, **changed)
    kills = KillsAt(step)
    trained = trainer(
        net(), args, train_dataset=dataset(), compute_loss=compute_loss, callbacks=[kills]
    )
    trained.train(resume_from_checkpoint=bool(list_checkpoints(directory)))
    logged = [
        {name: entry[name] for name in ("step", "epoch", "loss", "grad_norm") if name in entry}
        for entry in trained.state.log_history
    ]
    weights = [value.tolist() for value in trained.model.state_dict().values()]
    (directory / "result.json").write_text(json.dumps([weights, logged, kills.sum]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
