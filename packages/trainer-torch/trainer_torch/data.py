"""The training data: its order, its batches, and how many steps they make."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from trainer_torch.world import ALONE, World

if TYPE_CHECKING:
    from trainer_torch.arguments import TrainingArguments


@dataclass(frozen=True)
class Plan:
    """How long a training is.

    Attributes:
        max_steps: Update steps in all.
        num_train_epochs: Epochs that are begun, at most.
        batches_per_epoch: Batches in an epoch, of each rank.
    """

    max_steps: int
    num_train_epochs: int
    batches_per_epoch: int


def plan_training(
    args: TrainingArguments, dataloader: DataLoader[Any], world: World = ALONE
) -> Plan:
    """Return how long a training over `dataloader` is, which of several is the shortest.

    Raises:
        ValueError: The data is empty, or has no length where `args.max_steps` does not say how long
            to train.
    """
    accumulation = args.gradient_accumulation_steps
    if isinstance(dataloader.dataset, IterableDataset) and not isinstance(
        dataloader.dataset, Sized
    ):
        if args.max_steps < 0:
            raise ValueError(
                "train_dataset has no length, so num_train_epochs says nothing: set max_steps."
            )
        # As in transformers: without a length, all of the training counts as one epoch.
        return Plan(args.max_steps, sys.maxsize, args.max_steps * accumulation)
    batches = min(world.gather(len(dataloader)))
    if batches == 0:
        raise ValueError(
            "There is no batch to train on: train_dataset is empty, or dataloader_drop_last "
            "leaves out its only, short batch (per_device_train_batch_size is "
            f"{args.per_device_train_batch_size}, in each of {world.size} process(es))."
        )
    steps = math.ceil(batches / accumulation)
    if args.max_steps > 0:
        return Plan(args.max_steps, math.ceil(args.max_steps / steps), batches)
    return Plan(math.ceil(args.num_train_epochs * steps), math.ceil(args.num_train_epochs), batches)


class EpochSampler(Sampler[int]):
    """A shuffled order that only the seed and the epoch decide, and that can begin in its middle.

    Each rank has its share of that order, all of one length: where the data does not divide, some
    samples of its beginning come again at its end, as in torch's `DistributedSampler`.

    Args:
        data: What is sampled from, of a known length.
        seed: Epoch e is shuffled by a generator seeded with `seed + e`.
        world: The processes that share it.
    """

    def __init__(self, data: Any, seed: int, world: World = ALONE) -> None:
        self.data = data
        self.seed = seed
        self.world = world
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration that of `epoch`."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of the epoch, without the first `skip`."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.data), generator=generator)
        shared = len(self) * self.world.size
        if shared > len(order):
            order = order.repeat(math.ceil(shared / len(order)))[:shared]
        yield from order[self.world.rank :: self.world.size][self.skip :].tolist()

    def __len__(self) -> int:
        """Return the number of samples of this rank in a whole epoch."""
        return math.ceil(len(self.data) / self.world.size)


class TurnSampler(Sampler[int]):
    """The samples in their order, of which each rank takes whole batches in turn.

    Args:
        data: What is sampled from, of a known length.
        batch_size: Samples in a batch.
        world: The processes that take turns.
    """

    def __init__(self, data: Any, batch_size: int, world: World) -> None:
        firsts = range(world.rank * batch_size, len(data), world.size * batch_size)
        self.indices = [
            index for first in firsts for index in range(first, min(first + batch_size, len(data)))
        ]

    def __iter__(self) -> Iterator[int]:
        """Yield the indices."""
        return iter(self.indices)

    def __len__(self) -> int:
        """Return the number of samples of this rank."""
        return len(self.indices)


class TurnLoader(DataLoader[Any]):
    """Batches of an iterable dataset, the same on every rank, of which each takes one in turn.

    Args:
        dataset: What is read, on every rank all of it.
        world: The processes that take turns.
        whole_turns: Leave out the last batches where they are not enough for every rank.
        options: Those of torch's `DataLoader`.
    """

    def __init__(
        self, dataset: Dataset[Any], world: World, whole_turns: bool, **options: Any
    ) -> None:
        super().__init__(dataset, **options)
        self.world = world
        self.whole_turns = whole_turns

    def __iter__(self) -> Any:
        """Yield the batches of this rank."""
        mine = None
        last = self.world.size - 1 if self.whole_turns else self.world.rank
        for turn, batch in zip(cycle(range(self.world.size)), super().__iter__(), strict=False):
            if turn == self.world.rank:
                mine = batch
            if turn == last:
                yield mine

    def __len__(self) -> int:
        """Return the number of batches of this rank, where the dataset has a length."""
        turns, left = divmod(super().__len__(), self.world.size)
        return turns + (self.world.rank < left and not self.whole_turns)


def train_dataloader(
    dataset: Dataset[Any],
    collate: Callable[..., Any] | None,
    args: TrainingArguments,
    world: World = ALONE,
) -> DataLoader[Any]:
    """Return a loader of shuffled batches of training; an iterable dataset keeps its own order."""
    options: dict[str, Any] = {
        "batch_size": args.per_device_train_batch_size,
        "collate_fn": collate,
        "drop_last": args.dataloader_drop_last,
        "generator": torch.Generator(),  # its own: beginning an epoch draws nothing from torch's
        **_loading(args),
    }
    if not isinstance(dataset, IterableDataset):
        sampler = EpochSampler(dataset, _data_seed(args), world)
        return DataLoader(dataset, sampler=sampler, **options)
    if world is ALONE:
        return DataLoader(dataset, **options)
    return TurnLoader(dataset, world, whole_turns=True, **options)


def eval_dataloader(
    dataset: Dataset[Any],
    collate: Callable[..., Any] | None,
    args: TrainingArguments,
    world: World = ALONE,
) -> DataLoader[Any]:
    """Return a loader of batches of evaluation, in the order of `dataset`."""
    options: dict[str, Any] = {
        "batch_size": args.per_device_eval_batch_size,
        "collate_fn": collate,
        "generator": torch.Generator().manual_seed(_data_seed(args)),
        **_loading(args),
    }
    if world is ALONE:
        return DataLoader(dataset, **options)
    if isinstance(dataset, IterableDataset):
        return TurnLoader(dataset, world, whole_turns=False, **options)
    sampler = TurnSampler(dataset, args.per_device_eval_batch_size, world)
    return DataLoader(dataset, sampler=sampler, **options)


def begin_epoch(
    dataloader: DataLoader[Any], args: TrainingArguments, epoch: int, skip: int
) -> Iterator[Any]:
    """Return the batches of `epoch` that follow the first `skip`.

    The loader's generators, and those of its samplers, are seeded anew for each epoch, so that an
    epoch is the same whether or not the training was resumed before it.

    Args:
        dataloader: Where the batches come from.
        args: The arguments of the training.
        epoch: The epoch, from 0. Whatever has a `set_epoch` is told.
        skip: Leave out so many batches, without loading them where the sampler can.
    """
    batch_sampler: Any = dataloader.batch_sampler
    wrapped = getattr(batch_sampler, "sampler", None)
    parts: list[Any] = [dataloader, dataloader.sampler, batch_sampler, wrapped]
    for part in parts:
        if hasattr(part, "generator"):
            part.generator = part.generator or torch.Generator()
            part.generator.manual_seed(_data_seed(args) + epoch)
    for part in [dataloader.dataset, *parts]:
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
    if isinstance(dataloader.sampler, EpochSampler):
        dataloader.sampler.skip = skip * args.per_device_train_batch_size
        skip = 0
    batches = iter(dataloader)
    for _ in islice(batches, skip):
        pass
    return batches


def _data_seed(args: TrainingArguments) -> int:
    return args.seed if args.data_seed is None else args.data_seed


def _loading(args: TrainingArguments) -> dict[str, Any]:
    return {
        "num_workers": args.dataloader_num_workers,
        "pin_memory": args.dataloader_pin_memory and args.device.type == "cuda",
    }
