"""Data loaders: makes them of datasets, and starts an epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from callback_core import open_bar
from trainer_torch.arguments import TrainingArguments
from trainer_torch.batches import kind_of
from trainer_torch.collating import default_collator
from trainer_torch.devices import can_pin_memory
from trainer_torch.drawing import parts_of, seed_generators, tell_epoch
from trainer_torch.loading import SeededLoader
from trainer_torch.position import LoopPosition
from trainer_torch.samplers import (
    EpochSampler,
    Order,
    RoundRobinSampler,
    grouped_by_length,
    lengths_of,
    sequential,
    shuffled,
)
from trainer_torch.sources import has_state
from trainer_torch.world import SINGLE_PROCESS, World

logger = logging.getLogger(__name__)


def batch_size_of_loader(dataloader: Any) -> int | None:
    """Return the number of samples in a full batch; `None` if the loader does not say it."""
    size = getattr(dataloader, "batch_size", None)
    if size is None:
        size = getattr(getattr(dataloader, "batch_sampler", None), "batch_size", None)
    return size if isinstance(size, int) and size > 0 else None


def can_start_anywhere(dataloader: Any) -> bool:
    """Return whether the loader can start at any sample, not only at a batch."""
    return isinstance(dataloader, SeededLoader)


def batches_of(dataloader: Any, samples: int, batch_size: int) -> int:
    """Return how many batches of an epoch are done when `samples` of this rank are.

    The Trainer's own loader continues at any sample, so that the batches that are left are those of
    the samples that are left. Any other loader is read from the start, in whole batches.
    """
    if not can_start_anywhere(dataloader) or dataloader.is_iterable:
        return samples // batch_size
    left = max(0, len(dataloader.sampler) - samples)
    return len(dataloader) - (
        left // batch_size if dataloader.drop_last else math.ceil(left / batch_size)
    )


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


def check_loader(method: str, loader: object) -> None:
    """Check that a method, which may be overridden, has returned a loader.

    Raises:
        TypeError: It has returned `None`.
    """
    if loader is None:
        raise TypeError(f"{method} returned None, but must return a loader of batches.")


def train_dataloader(
    dataset: Dataset[Any],
    collate: Callable[..., Any] | None,
    args: TrainingArguments,
    world: World = SINGLE_PROCESS,
    input_name: str = "input_ids",
) -> DataLoader[Any]:
    """Return a loader of training batches. An iterable dataset keeps its own order.

    Args:
        dataset: The training data.
        collate: Makes a batch of samples.
        args: The arguments of the training.
        world: The processes that share the data.
        input_name: What has the length of a sample, for `group_by_length`.
    """
    check_dataset("train_dataset", dataset)
    options: dict[str, Any] = {
        "batch_size": args.per_device_train_batch_size,
        "collate_fn": collate or default_collator,
        "drop_last": args.dataloader_drop_last,
        **_loading(args),
    }
    if not args.dataloader_in_order and args.dataloader_num_workers > 1 and world.is_main:
        logger.warning(
            "dataloader_in_order is False, so the order of the training data depends on the speed "
            "of its workers. Resuming within an epoch is not exact: samples may come twice or not "
            "at all."
        )
    seed, strategy = _data_seed(args), args.train_sampling_strategy
    if not isinstance(dataset, IterableDataset):
        order: Order = sequential if strategy == "sequential" else shuffled
        if strategy == "group_by_length":
            group = args.per_device_train_batch_size * args.gradient_accumulation_steps * world.size
            lengths = lengths_of(dataset, args.length_column_name, input_name)
            order = grouped_by_length(lengths, group)
        sampler = EpochSampler(dataset, seed, world, order)
        return SeededLoader(dataset, seed, world, sampler=sampler, **options)
    if strategy == "group_by_length" and world.is_main:
        logger.warning(
            "train_sampling_strategy is 'group_by_length', but has no effect: train_dataset is "
            "iterable, and keeps its own order."
        )
    if isinstance(dataset, getattr(torch.utils.data, "IterDataPipe", ())):
        return DataLoader(dataset, **options)  # which divides it among workers and ranks
    return SeededLoader(dataset, seed, world, whole_turns=True, **options)


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
        "collate_fn": collate or default_collator,
        **_loading(args),
    }
    if isinstance(dataset, getattr(torch.utils.data, "IterDataPipe", ())):
        return DataLoader(dataset, **options)
    if world is not SINGLE_PROCESS and not isinstance(dataset, IterableDataset):
        options["sampler"] = RoundRobinSampler(dataset, args.per_device_eval_batch_size, world)
    return SeededLoader(dataset, _data_seed(args), world, **options)


class EvalLoaders:
    """Keeps the evaluation loaders of a Trainer if their workers are to persist."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Any, DataLoader[Any]]] = {}

    def get(
        self,
        dataset: Dataset[Any],
        own: Any,
        collate: Callable[..., Any] | None,
        args: TrainingArguments,
        world: World,
    ) -> DataLoader[Any]:
        """Return a loader as `eval_dataloader` does, or the one that it returned before.

        Args:
            dataset: The data to evaluate or predict.
            own: The evaluation data of the Trainer, one dataset or several. Loaders of other data
                are not kept.
            collate: Makes a batch of samples.
            args: The arguments of the training.
            world: The processes that share the data.
        """
        of_trainer = own.values() if isinstance(own, Mapping) else [own]
        if not args.dataloader_persistent_workers or all(dataset is not one for one in of_trainer):
            return eval_dataloader(dataset, collate, args, world)
        options = (dataset, collate, args.per_device_eval_batch_size, _loading(args))
        made_with, loader = self._kept.get(id(dataset), (None, None))
        if loader is None or made_with != options:
            loader = eval_dataloader(dataset, collate, args, world)
            self._kept[id(dataset)] = options, loader
        return loader


class Reading(Iterator[Any]):
    """The batches of an epoch that are left.

    Args:
        batches: The batches.
        source: What has the `state_dict` of the position, such as the loader, or `None`.
        workers: The number of workers. A state only fits the same number.
        done: The number of batches before.
    """

    def __init__(self, batches: Iterator[Any], source: Any, workers: int, done: int) -> None:
        self._batches, self._source, self._workers = batches, source, workers
        self._read = done

    def __next__(self) -> Any:
        """Return the next batch."""
        batch = next(self._batches)
        self._read += 1
        return batch

    def state_dict(self, done: int) -> dict[str, Any] | None:
        """Return a state from which the epoch continues after its first `done` batches.

        Returns `None` if there is no such state: for example if more batches have been read,
        because the training stops between two batches of a step.
        """
        if self._source is None or done != self._read:
            return None
        state = self._source.state_dict()
        return None if state is None else {"workers": self._workers, "state": state}


def begin_epoch(
    dataloader: Any, args: TrainingArguments, position: LoopPosition, shows_skipping: bool = False
) -> Reading:
    """Return the batches of the epoch after those that are done.

    Calls `set_epoch` on the loader, its samplers and its dataset, as far as they have it. Seeds the
    generators of a loader that is not the Trainer's, of its samplers and its dataset, so that an
    epoch is the same whether or not the training was resumed before it. Its persistent workers are
    started again, because otherwise neither would reach them.

    Args:
        dataloader: A loader of training batches: torch's or anything that can be iterated.
        args: The arguments of the training.
        position: The epoch, and how much of it is done. The Trainer's loader starts there, unless
            the dataset is iterable without a state. Such data is read again, and so is another
            loader that has no state.
        shows_skipping: Whether to announce that and show a bar.
    """
    state, position.data_state, position.reading = position.data_state, None, None
    parts = parts_of(dataloader)
    tell_epoch(parts, position.epoch)
    workers = getattr(dataloader, "num_workers", 0)
    if isinstance(dataloader, SeededLoader):
        batches, skipped = _start(dataloader, position, state)
        source = dataloader.progress
    else:
        seed_generators(parts, _data_seed(args) + position.epoch)
        for part in parts:
            if isinstance(part, DataLoader) and part.persistent_workers:
                part._iterator = None  # noqa: SLF001  torch has no public way to end the workers
        source = dataloader if has_state(dataloader) else None
        if state is not None:
            dataloader.load_state_dict(state)
        batches, skipped = iter(dataloader), position.batches if state is None else 0
    if skipped:
        _skip(batches, skipped, position.epoch, shows_skipping, not args.disable_tqdm)
    position.reading = Reading(batches, source, workers, position.batches)
    return position.reading


def _start(
    dataloader: SeededLoader, position: LoopPosition, state: Any
) -> tuple[Iterator[Any], int]:
    """Return batches of the Trainer's loader, and how many of them have to be left out."""
    if not dataloader.is_iterable:
        return dataloader.read_samples(position.samples, position.batches), 0
    if state is not None:
        return dataloader.read_stream(state=state), 0
    ranks, size = dataloader.world.size, dataloader.batch_size or 1
    is_uniform = position.samples == position.batches * (position.batch_size or 0)
    if is_uniform and position.read_size in (None, size):
        before = [size] * position.batches * ranks
    else:  # batches of another size
        size = position.read_size or size
        whole, rest = divmod(position.samples * ranks, size)
        before = [size] * whole + [rest] * (rest > 0)
    return dataloader.read_stream(before, position.batches * ranks), len(before)


def _skip(
    batches: Iterator[Any], number: int, epoch: int, is_announced: bool, shows_bar: bool
) -> None:
    if is_announced:
        logger.warning(
            "Skipping the %d batches of epoch %d that were done before the checkpoint. They have "
            "to be read, because the checkpoint has no state of this data. An iterable "
            "train_dataset, or a loader of your own, continues at once if it has state_dict and "
            "load_state_dict.",
            number,
            epoch,
        )
    shown = open_bar(number, leave=False) if is_announced and shows_bar else nullcontext()
    with shown as bar:
        for _ in islice(batches, number):
            if bar is not None:
                bar.update(1)


def _data_seed(args: TrainingArguments) -> int:
    return args.seed if args.data_seed is None else args.data_seed


def _loading(args: TrainingArguments) -> dict[str, Any]:
    return {
        "num_workers": args.dataloader_num_workers,
        "pin_memory": args.dataloader_pin_memory and can_pin_memory(args.device),
        "persistent_workers": args.dataloader_persistent_workers,
        "prefetch_factor": args.dataloader_prefetch_factor,
        "multiprocessing_context": args.dataloader_multiprocessing_context,
        "in_order": args.dataloader_in_order,
    }
