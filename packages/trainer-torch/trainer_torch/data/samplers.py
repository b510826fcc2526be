"""Samplers: the order of the data in an epoch, and its division among ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from trainer_torch.hardware.seeding import preserved_rng
from trainer_torch.ranks.world import SINGLE_PROCESS, World

Order = Callable[[int, torch.Generator], Tensor]
"""Takes the number of samples and a generator. Returns the indices of all samples in an order."""


def shuffled(samples: int, generator: torch.Generator) -> Tensor:
    """Return a random order."""
    return torch.randperm(samples, generator=generator)


def sequential(samples: int, generator: torch.Generator) -> Tensor:
    """Return the order of the data."""
    return torch.arange(samples)


def grouped_by_length(lengths: Sequence[int], group: int) -> Order:
    """Return a random order in which samples of similar lengths stand together.

    As in transformers, the shuffled samples are divided into blocks of up to 50 groups, each block
    is sorted by length, and the longest sample of all comes first, so that memory runs out at the
    first step or not at all.

    Args:
        lengths: The length of each sample.
        group: The number of samples that should be similar: those of an update step on all ranks.
    """
    sizes = torch.as_tensor(lengths)

    def order(samples: int, generator: torch.Generator) -> Tensor:
        indices = torch.randperm(samples, generator=generator)
        block = group * max(1, min(samples // (group * 4), 50))
        blocks = [part[sizes[part].argsort(descending=True)] for part in indices.split(block)]
        indices = torch.cat(blocks)
        firsts = range(0, samples, block)
        longest = max(firsts, key=lambda first: int(sizes[indices[first]]))
        indices[[0, longest]] = indices[[longest, 0]]
        return indices

    return order


def lengths_of(dataset: Any, column: str, input_name: str) -> list[int]:
    """Return the length of each sample in `dataset`.

    It is the number in the column `column` of a dataset of Hugging Face, or under this name in a
    sample that is a mapping; otherwise the length of what the sample has under `input_name`.

    Raises:
        ValueError: The samples have neither.
    """
    if column in (getattr(dataset, "column_names", None) or ()):
        return [int(length) for length in dataset[column]]
    with preserved_rng():  # a dataset may draw when it is read
        return [_length(dataset[index], column, input_name) for index in range(len(dataset))]


def _length(sample: Any, column: str, input_name: str) -> int:
    if isinstance(sample, Mapping):
        if column in sample:
            return int(sample[column])
        if input_name in sample:
            return len(sample[input_name])
    found = (
        f"mappings with {list(sample)}" if isinstance(sample, Mapping) else type(sample).__name__
    )
    raise ValueError(
        "train_sampling_strategy is 'group_by_length', but the lengths of the samples are unknown: "
        f"they are {found}. Let each be a mapping with its length as {column!r} "
        f"(length_column_name), or with {input_name!r}, whose length counts."
    )


class EpochSampler(Sampler[int]):
    """Orders the data differently in each epoch, and can start within an epoch.

    The order depends on the seed and the epoch only. Each rank gets an equal share of it. If the
    data does not divide evenly, the first samples are repeated at the end, as in torch's
    `DistributedSampler`.

    Args:
        data: Anything with a length.
        seed: A generator with the seed `seed + epoch` orders each epoch.
        world: The processes that share the data.
        order: The order of the whole data.
    """

    def __init__(
        self, data: Any, seed: int, world: World = SINGLE_PROCESS, order: Order = shuffled
    ) -> None:
        self.data = data
        self.seed = seed
        self.world = world
        self.order = order
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def after(self, samples: int) -> list[int]:
        """Return this rank's indices of the epoch without the first `samples`."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = self.order(len(self.data), generator)
        shared = len(self) * self.world.size
        if shared > len(order):
            order = order.repeat(math.ceil(shared / len(order)))[:shared]
        indices: list[int] = order[self.world.rank :: self.world.size][samples:].tolist()
        return indices

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's indices of the epoch."""
        yield from self.after(0)

    def __len__(self) -> int:
        """Return the number of this rank's samples in a whole epoch."""
        return math.ceil(len(self.data) / self.world.size)


class RoundRobinSampler(Sampler[int]):
    """Deals the samples to the ranks in order, one whole batch to each rank in turn.

    Args:
        data: Anything with a length.
        batch_size: The number of samples in a batch.
        world: The processes that share the data.
    """

    def __init__(self, data: Any, batch_size: int, world: World) -> None:
        firsts = range(world.rank * batch_size, len(data), world.size * batch_size)
        self.indices = [
            index for first in firsts for index in range(first, min(first + batch_size, len(data)))
        ]

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's indices."""
        return iter(self.indices)

    def __len__(self) -> int:
        """Return the number of this rank's samples."""
        return len(self.indices)
