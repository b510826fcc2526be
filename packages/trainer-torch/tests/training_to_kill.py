"""The trainings that `kills.py` kills. Each writes how it ended to `result.json`."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from small import arguments, compute_loss, data, net
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from callback_core import TrainerCallback
from trainer_torch import Trainer, WeightAveragingCallback
from trainer_torch.model.shards import METADATA, read_shards, shapes_of_shards
from trainer_torch.storage.checkpoint import list_checkpoints
from trainer_torch.storage.remote import RemoteDirectory

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


class Kind(NamedTuple):
    """What a training consists of, and how many processes it has."""

    trainer: type[Trainer] = Trainer
    dataset: type[Dataset[Any]] = Augmented
    arguments: dict[str, Any] | None = None
    averages: bool = False
    ranks: int = 1


IN_WORKERS: dict[str, Any] = {"dataloader_num_workers": 2}
WHILE_TRAINING: dict[str, Any] = {"save_async": True}
SHARDED: dict[str, Any] = {"fsdp": True}
KINDS: dict[str, Kind] = {
    "plain": Kind(dataset=Plain),
    "augmentation in workers": Kind(arguments=IN_WORKERS),
    "persistent workers": Kind(arguments={**IN_WORKERS, "dataloader_persistent_workers": True}),
    "stream": Kind(dataset=Stream),
    "stream in workers": Kind(dataset=Stream, arguments=IN_WORKERS),
    "fp16 with overflows": Kind(Overflows, arguments={"fp16": True}),
    "averaged weights": Kind(arguments={"eval_strategy": "epoch"}, averages=True),
    "accumulation": Kind(arguments={"gradient_accumulation_steps": 2}),
    "own loader": Kind(Own),
    "saved while training": Kind(arguments={**WHILE_TRAINING, "save_total_limit": 2}),
    "workers and saved while training": Kind(arguments={**WHILE_TRAINING, **IN_WORKERS}),
    "averaged and saved while training": Kind(
        arguments={**WHILE_TRAINING, "eval_strategy": "epoch"}, averages=True
    ),
    "four ranks": Kind(ranks=4),
    "four ranks, sharded": Kind(arguments=SHARDED, ranks=4),
    "four ranks, sharded and saved while training": Kind(
        arguments={**SHARDED, **WHILE_TRAINING}, ranks=4
    ),
}


def values_of_shards(folder: Path) -> dict[str, Tensor]:
    """Return the tensors that a folder of shards holds, by name."""
    shapes = shapes_of_shards(folder)
    values = {name: torch.empty_like(one, device="cpu") for name, one in shapes.items()}
    read_shards(folder, values)
    return values


def digest(path: Path, address: str = "") -> str:
    """Return the digest of what a file of a checkpoint holds, but for the directory's names.

    Files of torch are loaded, because the same values are written in several ways. So are shards,
    for which their metadata stands.
    """
    if path.suffix in (".pt", ".pth") or path.name == METADATA:
        is_file = path.name != METADATA
        loaded = torch.load(path, weights_only=True) if is_file else values_of_shards(path.parent)
        plain = json.dumps(
            loaded, sort_keys=True, default=lambda one: [str(one.dtype), one.tolist()]
        )
        content = plain.encode()
    else:
        content = path.read_bytes().replace(str(path.parents[1]).encode(), b"")
        content = content.replace(address.encode(), b"") if address else content
    return hashlib.sha256(content).hexdigest()


def train(
    kind: Kind,
    directory: Path,
    *callbacks: Any,
    on_accelerator: bool = False,
    address: str | None = None,
) -> None:
    """Train, from the newest checkpoint if there is one, and write how it ended.

    With an address, the training uploads to it, keeps two checkpoints, and resumes from there.
    """
    given = {"per_device_train_batch_size": 4 // kind.ranks, **(kind.arguments or {})}
    if on_accelerator:
        given = {**given, "use_cpu": False, "full_determinism": True}
    has_saved = bool(list_checkpoints(directory))
    if address is not None:
        given = {**given, "remote_output_dir": address, "save_total_limit": 2}
        found = RemoteDirectory(address).list_checkpoints()
        has_saved = any(one.find_fault() is None for one in found)
    args = arguments(directory, save_strategy="steps", save_steps=1, **given)
    averaging = [WeightAveragingCallback(0.9)] if kind.averages else []
    trainer = kind.trainer(
        net(),
        args,
        train_dataset=kind.dataset(),
        eval_dataset=data(9),
        compute_loss=compute_loss,
        callbacks=[*averaging, Draws(), *callbacks],
    )
    trainer.train(resume_from_checkpoint=has_saved)
    ended = result(trainer, directory, address or "")
    if trainer.is_world_process_zero():
        (directory / "result.json").write_text(json.dumps(ended, indent=1, sort_keys=True))


def result(trainer: Trainer, directory: Path, address: str) -> dict[str, Any]:
    """Return how a training ended. Every process must call this.

    Of the last checkpoint, it has digests of the files that have no measured times.
    """
    last = list_checkpoints(directory)[-1]
    others = ("trainer_state.json", "manifest.json", METADATA)
    measured = ("runtime", "_per_second")
    weights = trainer.model.state_dict().values()
    return {
        "weights": [getattr(one, "full_tensor", lambda one=one: one)().tolist() for one in weights],
        "history": [
            {name: value for name, value in entry.items() if not name.endswith(measured)}
            for entry in trainer.state.log_history
        ],
        "callbacks": trainer.state.stateful_callbacks,
        "precision": trainer.run.precision.state_dict(),
        "checkpoint": {
            str(path.relative_to(last)): digest(path, address)
            for path in sorted(last.rglob("*"))
            if path.is_file() and path.name not in others and path.suffix != ".distcp"
        },
    }
