"""Loaders of one's own that have a state continue there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP
from small import arguments, compute_loss, net
from torch import Tensor

from trainer_torch import Trainer


def sample(index: int) -> tuple[Tensor, int]:
    return torch.tensor([float(index), 0.1 * index, 1.0, 0.0]), index % 3


class Batches:
    """A loader that is none of torch's. It counts its epochs itself, and what it reads."""

    def __init__(self) -> None:
        self.epoch = self.position = self.read = 0

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[Any]:
        while self.position < 5:
            self.position, self.read = self.position + 1, self.read + 1
            rows = [sample((self.position * 4 + self.epoch + row) % 20) for row in range(4)]
            yield torch.stack([row[0] for row in rows]), torch.tensor([row[1] for row in rows])
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


class NeedsArguments(Batches):
    """Has a `state_dict` that needs an argument."""

    def state_dict(self, samples: int) -> dict[str, Any]:  # type: ignore[override]
        raise AssertionError


class Own(Trainer):
    """Has a data loader of its own, and keeps what it yields."""

    def __init__(self, output_dir: Path, loader: Any, **changed: Any) -> None:
        self.loader, self.seen = loader, []  # type: ignore[var-annotated]
        args = arguments(output_dir, **{"num_train_epochs": 3, **EVERY_STEP, **changed})
        super().__init__(net(), args, compute_loss=self.loss)

    def get_train_dataloader(self) -> Any:
        return self.loader

    def loss(self, model: Any, batch: Any, **kwargs: Any) -> Any:
        self.seen.append([int(index) for index in batch[0][:, 0]])
        return compute_loss(model, [batch[0] / 30, batch[1]])


def trained(output_dir: Path, loader: Any, resume: Any = None, **changed: Any) -> Own:
    made = Own(output_dir, loader, **changed)
    made.train(resume)
    return made


@pytest.mark.parametrize("step", [3, 5, 7])
def test_a_loader_with_a_state_reads_nothing_twice(tmp_path: Path, step: int) -> None:
    whole = trained(tmp_path / "whole", Batches())
    loader = Batches()
    resumed = trained(tmp_path, loader, tmp_path / "whole" / f"checkpoint-{step}")
    assert resumed.seen == whole.seen[step:]
    assert loader.read == 15 - step
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_at_the_end_of_an_epoch_continues_with_the_next(tmp_path: Path) -> None:
    by_epoch = {"save_strategy": "epoch"}
    whole = trained(tmp_path / "whole", Batches(), **by_epoch)
    checkpoint = tmp_path / "whole" / "checkpoint-5"
    assert trained(tmp_path, Batches(), checkpoint, **by_epoch).seen == whole.seen[5:]


def test_a_state_that_needs_arguments_is_not_used(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", NeedsArguments(), num_train_epochs=1)
    loader = NeedsArguments()
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    resumed = trained(tmp_path, loader, checkpoint, num_train_epochs=1)
    assert resumed.seen == whole.seen[3:]
    assert loader.read == 5
