"""Data loaders: the order of the data, its division among ranks, and the length of a training."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from trainer_torch.arguments import TrainingArguments
from trainer_torch.batches import kind_of
from trainer_torch.world import SINGLE_PROCESS, World

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """The length of a training.

    Attributes:
        max_steps: The number of update steps.
        num_train_epochs: The number of epochs. The last one may be incomplete.
        batches_per_epoch: The number of batches of each rank in an epoch.
    """

    max_steps: int
    num_train_epochs: int
    batches_per_epoch: int


def plan_training(
    args: TrainingArguments, dataloader: DataLoader[Any], world: World = SINGLE_PROCESS
) -> Plan:
    """Return the length of a training with `dataloader`. The rank with the fewest batches decides.

    Raises:
        ValueError: There is no batch, or the data has no length and `args.max_steps` is not set.
    """
    accumulation = args.gradient_accumulation_steps
    if isinstance(dataloader.dataset, IterableDataset) and not isinstance(
        dataloader.dataset, Sized
    ):
        if args.max_steps < 0:
            raise ValueError(
                "train_dataset has no length, so num_train_epochs is not enough: set max_steps."
            )
        # As in transformers: without a length, all of the training counts as one epoch.
        return Plan(args.max_steps, sys.maxsize, args.max_steps * accumulation)
    batches = min(world.gather(len(dataloader)))
    if batches == 0:
        raise ValueError(
            "There is no batch to train on: train_dataset is empty, or dataloader_drop_last drops "
            "its only, incomplete batch (per_device_train_batch_size is "
            f"{args.per_device_train_batch_size}, in each of {world.size} process(es))."
        )
    steps = math.ceil(batches / accumulation)
    if args.max_steps > 0:
        return Plan(args.max_steps, math.ceil(args.max_steps / steps), batches)
    return Plan(math.ceil(args.num_train_epochs * steps), math.ceil(args.num_train_epochs), batches)


class DataLength:
    """Compares the length of the training data with the batches that it yields.

    Args:
        plan: The length of the training, which was made from the length of the data.

    Attributes:
        is_short: Whether an epoch had fewer batches than the plan.
    """

    def __init__(self, plan: Plan) -> None:
        self.is_short = False
        self._plan = plan
        self._told = False

    def check(self, epoch: int, batches: int, by_steps: bool) -> None:
        """Note an epoch that came to its end, and warn once if its length is not the plan's.

        Args:
            epoch: The epoch, from 0.
            batches: The number of batches that the data yielded in it.
            by_steps: Whether the user gave the number of steps, not that of epochs.
        """
        plan = self._plan
        has_length = plan.num_train_epochs < sys.maxsize
        self.is_short |= has_length and batches < plan.batches_per_epoch
        if batches == 0:
            logger.warning("Training stops: train_dataset yielded nothing in epoch %d.", epoch)
        elif has_length and batches != plan.batches_per_epoch and not self._told:
            self._told = True
            if by_steps:
                consequence = f"Training takes the {plan.max_steps} steps of max_steps all the same"
            elif batches < plan.batches_per_epoch:
                consequence = (
                    f"Training ends after {plan.num_train_epochs} epochs, with fewer than the "
                    f"{plan.max_steps} steps that the learning rate is planned for"
                )
            else:
                consequence = f"Training ends after {plan.max_steps} steps, with fewer epochs"
            logger.warning(
                "The training data yielded %d batches in epoch %d, but its length is %d. %s. Make "
                "its length right, or set max_steps.",
                batches,
                epoch,
                plan.batches_per_epoch,
                consequence,
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
        """Yield this rank's indices of the epoch, without the first `skip`."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.data), generator=generator)
        shared = len(self) * self.world.size
        if shared > len(order):
            order = order.repeat(math.ceil(shared / len(order)))[:shared]
        yield from order[self.world.rank :: self.world.size][self.skip :].tolist()

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
    dataloader: DataLoader[Any], args: TrainingArguments, epoch: int, skip: int
) -> Iterator[Any]:
    """Return the batches of `epoch` after the first `skip`.

    Seeds the generators of the loader and its samplers, so that an epoch is the same whether or not
    the training was resumed before it. Calls `set_epoch` on the dataset, the loader and its
    samplers, if they have it.

    Args:
        dataloader: A loader of training batches.
        args: The arguments of the training.
        epoch: The epoch, from 0.
        skip: The number of batches to skip. An `EpochSampler` skips them without loading them.
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
