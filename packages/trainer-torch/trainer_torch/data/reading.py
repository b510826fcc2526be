"""Reads an epoch of the training data, from where a training is."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from callback_core import open_bar
from trainer_torch.arguments.training_arguments import TrainingArguments
from trainer_torch.data.batch_size import LoadedSizes
from trainer_torch.data.data_loaders import data_seed
from trainer_torch.data.drawing import parts_of, seed_generators, tell_epoch
from trainer_torch.data.loading import SeededLoader, end_workers
from trainer_torch.data.position import LoopPosition
from trainer_torch.data.sources import has_state
from trainer_torch.ranks.signals import workers_starting

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


class Reading(Iterator[Any]):
    """The batches of an epoch that are left.

    Args:
        batches: The batches.
        source: What has the `state_dict` of the position, such as the loader, or `None`.
        workers: The number of workers. A state only fits the same number.
        done: The number of batches before.
        sizes: What the loader puts into its batches.
    """

    def __init__(
        self,
        batches: Iterator[Any],
        source: Any,
        workers: int,
        done: int,
        sizes: LoadedSizes,
    ) -> None:
        self._batches, self._source, self._workers = batches, source, workers
        self._read = done
        self.sizes = sizes

    def __next__(self) -> Any:
        """Return the next batch."""
        batch = next(self._batches)
        self._read += 1
        return batch

    def end(self) -> None:
        """Read nothing more, so that the workers end."""
        self._batches = iter(())

    def state_dict(self, done: int) -> dict[str, Any] | None:
        """Return a state from which the epoch continues after its first `done` batches.

        Returns `None` if there is no such state: for example if more batches have been read,
        because the training stops between two batches of a step.
        """
        if self._source is None or done != self._read:
            return None
        state = self._source.state_dict()
        return None if state is None else {"workers": self._workers, "state": state}


def end_reading(dataloader: Any, position: LoopPosition) -> None:
    """End the workers of the training data, but keep the state of a loader that has one."""
    if isinstance(position.reading, Reading):
        position.reading.end()
    for part in parts_of(dataloader):
        if isinstance(part, SeededLoader):
            part.end_workers()
        elif isinstance(part, DataLoader) and not has_state(part):
            end_workers(part)


def begin_epoch(
    dataloader: Any,
    args: TrainingArguments,
    position: LoopPosition,
    shows_skipping: bool = False,
    stops: Callable[[], Any] = lambda: False,
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
        stops: A function that returns whether to stop skipping, because the training ends.
    """
    state, position.data_state, position.reading = position.data_state, None, None
    parts = parts_of(dataloader)
    tell_epoch(parts, position.epoch)
    workers = getattr(dataloader, "num_workers", 0)
    if isinstance(dataloader, SeededLoader):
        with workers_starting(dataloader):
            batches, skipped = _start(dataloader, position, state)
        source = dataloader.progress
    else:
        seed_generators(parts, data_seed(args) + position.epoch)
        for part in parts:
            if isinstance(part, DataLoader):
                end_workers(part)
        source = dataloader if has_state(dataloader) else None
        if state is not None:
            dataloader.load_state_dict(state)
        with workers_starting(dataloader):
            batches, skipped = iter(dataloader), position.batches if state is None else 0
    if skipped:
        shows_bar = not args.disable_tqdm
        _skip(batches, skipped, position.epoch, shows_skipping, shows_bar, stops)
    sizes = LoadedSizes(dataloader)
    position.reading = Reading(batches, source, workers, position.batches, sizes)
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
    batches: Iterator[Any],
    number: int,
    epoch: int,
    is_announced: bool,
    shows_bar: bool,
    stops: Callable[[], Any],
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
            if stops():
                break
            if bar is not None:
                bar.update(1)
