"""Shared by the benchmarks of training: small models, their data, and a loop written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset

DEVICE: Final = (
    torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
) or torch.device("cpu")
ON_DEVICE: Final = DEVICE.type != "cpu"


class Size(NamedTuple):
    """The size of a language model and of its batches.

    Attributes:
        width: The number of features of a word.
        layers: The number of layers.
        length: The number of words in a sequence.
        batch: The number of sequences in a batch.
        words: The number of different words.
    """

    width: int
    layers: int
    length: int
    batch: int
    words: int


LARGE: Final = Size(width=1024, layers=12, length=512, batch=16, words=4096)
"""For a GPU."""


class Language(nn.Module):
    """A causal transformer of this size: input_ids and labels, each (batch, length), to a loss."""

    def __init__(self, size: Size, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        width, heads = size.width, max(1, size.width // 64)
        options = {"batch_first": True, "norm_first": True}
        self.words = nn.Embedding(size.words, width)
        self.places = nn.Embedding(size.length, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, **options)
            for _ in range(size.layers)
        )
        self.head = nn.Linear(width, size.words)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(size.length))

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and the scores of each next word."""
        hidden = self.words(input_ids) + self.places.weight
        for block in self.blocks:
            hidden = block(hidden, src_mask=self.mask, is_causal=True)
        scores = self.head(hidden)
        loss = nn.functional.cross_entropy(scores.flatten(0, 1).float(), labels.flatten())
        return {"loss": loss, "logits": scores}


class Words(Dataset[dict[str, Tensor]]):
    """Sequences in which each word mostly determines the next one."""

    def __init__(self, size: Size, samples: int) -> None:
        generator = torch.Generator().manual_seed(0)
        steps = torch.randint(1, 4, (samples, size.length + 1), generator=generator)
        self.words = (steps.cumsum(1) + torch.arange(samples)[:, None]) % size.words

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        words = self.words[index]
        return {"input_ids": words[:-1], "labels": words[1:]}


class Tiny(nn.Module):
    """Two layers, from 64 numbers to 10 classes: next to nothing to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss and the scores of a batch."""
        scores = self.layers(x)
        return {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


class Points(Dataset[dict[str, Tensor]]):
    """Random samples for `Tiny`, the same each time."""

    def __init__(self, samples: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(samples, 64, generator=generator)
        self.labels = torch.randint(10, (samples,), generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}


def train_by_hand(
    model: nn.Module, data: Dataset[Any], batch: int, steps: int, dtype: torch.dtype | None = None
) -> Iterator[int]:
    """Train as the Trainer does by default, with nothing else. Yield the number of each step done.

    The optimizer is the same: fused AdamW with two groups, for parameters with and without decay.

    Args:
        model: The model, on its device.
        data: The data of at least `steps` batches.
        batch: The number of samples in a batch.
        steps: The number of update steps over which the learning rate falls.
        dtype: The type of autocast, if it is to be used.
    """
    decayed = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim <= 1]
    groups = [{"params": decayed}, {"params": others}]
    optimizer = AdamW(groups, lr=5e-5, weight_decay=0.0, fused=True)
    schedule = LambdaLR(optimizer, lambda step: (steps - step) / steps)
    loader = DataLoader(data, batch, shuffle=True, pin_memory=ON_DEVICE)
    total = torch.zeros((), device=DEVICE)
    for step, inputs in enumerate(loader, start=1):
        if ON_DEVICE:
            inputs = {k: value.to(DEVICE, non_blocking=True) for k, value in inputs.items()}
        if dtype is None:
            loss = model(**inputs)["loss"]
        else:
            with torch.autocast(DEVICE.type, dtype):
                loss = model(**inputs)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.detach()
        yield step
