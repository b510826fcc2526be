"""Data loaders: makes them of datasets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.data.batches import kind_of
from trainer_torch.data.collating import default_collator
from trainer_torch.data.loading import SeededLoader
from trainer_torch.data.samplers import (
    EpochSampler,
    Order,
    RoundRobinSampler,
    grouped_by_length,
    lengths_of,
    sequential,
    shuffled,
)
from trainer_torch.hardware.devices import can_pin_memory
from trainer_torch.ranks.world import SINGLE_PROCESS, World

logger = logging.getLogger(__name__)


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
    seed, strategy = data_seed(args), args.train_sampling_strategy
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
    return SeededLoader(dataset, data_seed(args), world, **options)


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


def data_seed(args: TrainingArguments) -> int:
    """Return the seed of the order of the data."""
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
