"""Data loaders: the order of the data, its division among ranks, and the begin of an epoch."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from callback_core import open_bar
from trainer_torch.arguments import TrainingArguments
from trainer_torch.batches import kind_of
from trainer_torch.devices import can_pin_memory
from trainer_torch.position import LoopPosition
from trainer_torch.world import SINGLE_PROCESS, World

logger = logging.getLogger(__name__)


def batch_size_of_loader(dataloader: Any) -> int | None:
    """Return the number of samples in a full batch; `None` if the loader does not say it."""
    size = getattr(dataloader, "batch_size", None)
    if size is None:
        size = getattr(getattr(dataloader, "batch_sampler", None), "batch_size", None)
    return size if isinstance(size, int) and size > 0 else None


def can_start_anywhere(dataloader: Any) -> bool:
    """Return whether the loader can start at any sample without reading those before."""
    return isinstance(getattr(dataloader, "sampler", None), EpochSampler)


def batches_of(dataloader: Any, samples: int, batch_size: int) -> int:
    """Return how many batches of an epoch are done when `samples` are.

    An `EpochSampler` continues at any sample, so that the batches that are left are those of the
    samples that are left. Any other loader is read from the start, in whole batches.
    """
    if not can_start_anywhere(dataloader):
        return samples // batch_size
    left = max(0, len(dataloader.sampler) - samples)
    return len(dataloader) - (
        left // batch_size if dataloader.drop_last else math.ceil(left / batch_size)
    )


class EpochSampler(Sampler[int]):
    """Shuffles the data, and can start within an epoch.

    The order depends on the seed and the epoch only. Each rank gets an equal share of it. If the
    data does not divide evenly, the first samples are repeated at the end, as in torch's
    `DistributedSampler`.

    Args:
        data: Anything with a length.
        seed: A generator with the seed `seed + epoch` shuffles each epoch.
        world: The processes that share the data.
    """

    def __init__(self, data: Any, seed: int, world: World = SINGLE_PROCESS) -> None:
        self.data = data
        self.seed = seed
        self.world = world
        self.epoch = 0
        self.skip = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's indices of the epoch, the first time without the first `skip`."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.data), generator=generator)
        shared = len(self) * self.world.size
        if shared > len(order):
            order = order.repeat(math.ceil(shared / len(order)))[:shared]
        skip, self.skip = self.skip, 0  # whoever else iterates gets the whole epoch
        yield from order[self.world.rank :: self.world.size][skip:].tolist()

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


class RoundRobinLoader(DataLoader[Any]):
    """Deals the batches of an iterable dataset to the ranks, one to each in turn.

    Every rank reads the whole dataset, which must yield the same on each.

    Args:
        dataset: The iterable dataset.
        world: The processes that share the data.
        whole_turns: Drop the last batches if there is not one for every rank.
        options: The options of torch's `DataLoader`.
    """

    def __init__(
        self, dataset: Dataset[Any], world: World, whole_turns: bool, **options: Any
    ) -> None:
        super().__init__(dataset, **options)
        self.world = world
        self.whole_turns = whole_turns

    def __iter__(self) -> Any:
        """Yield this rank's batches."""
        own = None
        # With whole_turns, a batch is kept back until the last rank has one too.
        last = self.world.size - 1 if self.whole_turns else self.world.rank
        for turn, batch in zip(cycle(range(self.world.size)), super().__iter__(), strict=False):
            if turn == self.world.rank:
                own = batch
            if turn == last:
                yield own

    def __len__(self) -> int:
        """Return the number of this rank's batches, if the dataset has a length."""
        turns, rest = divmod(super().__len__(), self.world.size)
        return turns + (self.world.rank < rest and not self.whole_turns)


def check_dataset(name: str, dataset: object) -> None:
    """Check that `dataset` can be read.

    Args:
        name: The name of the dataset, for the message.
        dataset: What was given as a dataset.

    Raises:
        TypeError: It cannot. The message says what to pass.
    """
    if isinstance(dataset, DataLoader):
        advice = (
            "Pass its dataset; the Trainer makes a loader of it, with the batch size in the "
            "arguments and with data_collator. To use your own loader, override "
            "get_train_dataloader or get_eval_dataloader"
        )
    elif isinstance(dataset, type):
        advice = "Pass an instance of it"
    elif isinstance(dataset, Mapping):
        advice = f"Pass one of its values: {', '.join(map(repr, islice(dataset, 10)))}"
    elif isinstance(dataset, tuple) and all(isinstance(i, (Tensor, np.ndarray)) for i in dataset):
        advice = "Pass a torch.utils.data.TensorDataset of these tensors"
    elif isinstance(dataset, (str, bytes)):
        advice = "Load it, and pass the dataset"
    elif hasattr(dataset, "iloc"):
        advice = "It is read by column. Pass a dataset of its rows, such as to_dict('records')"
    elif isinstance(dataset, IterableDataset):
        return
    elif not hasattr(dataset, "__getitem__"):
        advice = "Pass a dataset with __getitem__ and __len__, or a torch IterableDataset"
    else:
        return
    raise TypeError(f"{name} is {kind_of(dataset)}, which is not a dataset. {advice}.")


def train_dataloader(
    dataset: Dataset[Any],
    collate: Callable[..., Any] | None,
    args: TrainingArguments,
    world: World = SINGLE_PROCESS,
) -> DataLoader[Any]:
    """Return a loader of shuffled training batches. An iterable dataset keeps its own order."""
    check_dataset("train_dataset", dataset)
    options: dict[str, Any] = {
        "batch_size": args.per_device_train_batch_size,
        "collate_fn": collate,
        "drop_last": args.dataloader_drop_last,
        # Without a generator of its own, each epoch would draw a seed from torch's global one.
        "generator": torch.Generator(),
        **_loading(args),
    }
    if not isinstance(dataset, IterableDataset):
        sampler = EpochSampler(dataset, _data_seed(args), world)
        return DataLoader(dataset, sampler=sampler, **options)
    if world is SINGLE_PROCESS:
        return DataLoader(dataset, **options)
    return RoundRobinLoader(dataset, world, whole_turns=True, **options)


def eval_dataloader(
    dataset: Dataset[Any],
    collate: Callable[..., Any] | None,
    args: TrainingArguments,
    world: World = SINGLE_PROCESS,
) -> DataLoader[Any]:
    """Return a loader of evaluation batches, in the order of `dataset`."""
    check_dataset("The dataset to evaluate or predict", dataset)
    options: dict[str, Any] = {
        "batch_size": args.per_device_eval_batch_size,
        "collate_fn": collate,
        "generator": torch.Generator().manual_seed(_data_seed(args)),
        **_loading(args),
    }
    if world is SINGLE_PROCESS:
        return DataLoader(dataset, **options)
    if isinstance(dataset, IterableDataset):
        return RoundRobinLoader(dataset, world, whole_turns=False, **options)
    sampler = RoundRobinSampler(dataset, args.per_device_eval_batch_size, world)
    return DataLoader(dataset, sampler=sampler, **options)


def begin_epoch(
    dataloader: Any, args: TrainingArguments, position: LoopPosition, shows_skipping: bool = False
) -> Iterator[Any]:
    """Return the batches of the epoch after those that are done.

    Seeds the generators of the loader, its samplers and its dataset, so that an epoch is the same
    whether or not the training was resumed before it. Calls `set_epoch` on all of them that have
    it. Persistent workers are started again, because otherwise neither would reach them.

    Args:
        dataloader: A loader of training batches: torch's or anything that can be iterated.
        args: The arguments of the training.
        position: The epoch, and how much of it is done. An `EpochSampler` skips that without
            loading it. Any other loader has to be read, and so has a dataset that draws from a
            generator of its own.
        shows_skipping: Whether to announce that and show a bar.
    """
    parts = _parts(dataloader)
    for part in parts:
        _seed(part, _data_seed(args) + position.epoch)
        if hasattr(part, "set_epoch"):
            part.set_epoch(position.epoch)
        if isinstance(part, DataLoader) and part.persistent_workers:
            part._iterator = None  # noqa: SLF001  torch has no public way to end the workers
    draws = any(_generators(part) for part in parts if isinstance(part, Dataset))
    if can_start_anywhere(dataloader) and not (draws and _is_whole_batches(position)):
        dataloader.sampler.skip = position.samples
        return iter(dataloader)
    batches = iter(dataloader)
    if position.batches:
        _skip(batches, position, shows_skipping, shows_bar=not args.disable_tqdm)
    return batches


def _skip(
    batches: Iterator[Any], position: LoopPosition, is_announced: bool, shows_bar: bool
) -> None:
    if is_announced:
        logger.warning(
            "Skipping the %d batches of epoch %d that the checkpoint has done. The loader cannot "
            "start within an epoch, so they have to be read.",
            position.batches,
            position.epoch,
        )
    shown = open_bar(position.batches, leave=False) if is_announced and shows_bar else nullcontext()
    with shown as bar:
        for _ in islice(batches, position.batches):
            if bar is not None:
                bar.update(1)


def _parts(dataloader: Any) -> list[Any]:
    """Return the loader, its samplers and its dataset, and the loaders and so on in them."""
    parts: list[Any] = []
    found = [dataloader]
    while found:
        part = found.pop(0)
        if part is None or any(part is other for other in parts):
            continue
        parts.append(part)
        found += [getattr(part, name, None) for name in ("sampler", "batch_sampler", "dataset")]
        for value in getattr(part, "__dict__", {}).values():
            inner = value if isinstance(value, (list, tuple)) else [value]
            found += [one for one in inner if isinstance(one, (DataLoader, Dataset, Sampler))]
    return parts


def _generators(part: Any) -> list[Any]:
    """Return the generators that are attributes of `part`."""
    kinds = (torch.Generator, random.Random, np.random.RandomState, np.random.Generator)
    values = getattr(part, "__dict__", {}).values()
    return [value for value in values if isinstance(value, kinds)]


def _seed(part: Any, seed: int) -> None:
    """Seed the generators of `part`, under any name. A missing `generator` of torch is made."""
    if isinstance(part, (DataLoader, Sampler)) and hasattr(part, "generator"):
        part.generator = part.generator or torch.Generator()
    for generator in _generators(part):
        if isinstance(generator, torch.Generator):
            generator.manual_seed(seed)
        elif isinstance(generator, np.random.Generator):
            bits = generator.bit_generator
            bits.state = type(bits)(seed).state
        else:
            generator.seed(seed % 2**32)


def _is_whole_batches(position: LoopPosition) -> bool:
    return position.batches * (position.batch_size or 0) == position.samples


def _data_seed(args: TrainingArguments) -> int:
    return args.seed if args.data_seed is None else args.data_seed


def _loading(args: TrainingArguments) -> dict[str, Any]:
    return {
        "num_workers": args.dataloader_num_workers,
        "pin_memory": args.dataloader_pin_memory and can_pin_memory(args.device),
    }
