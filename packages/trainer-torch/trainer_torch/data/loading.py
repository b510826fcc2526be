"""`SeededLoader`: loads batches that depend on their place in the data only."""

from __future__ import annotations

import pickle
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import count, cycle, islice
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from trainer_torch.data.samplers import EpochSampler
from trainer_torch.data.sources import Loaded, Samples, Stream, Task
from trainer_torch.ranks.world import SINGLE_PROCESS, World


class SeededLoader(DataLoader[Any]):
    """Loads batches as torch's DataLoader does, and can start anywhere in an epoch.

    The generators of Python, numpy and torch are seeded for each batch, and so are those that are
    attributes of the dataset, the collator and their parts. What is drawn then depends on the seed,
    the epoch, the rank and the number of the batch, but not on the number of workers, nor on where
    the training was resumed. The training's own generators stay as they are.

    An iterable dataset is dealt to the ranks, one batch to each in turn. Every rank reads the whole
    dataset, which must yield the same on each: the rank is not in its seeds.

    Args:
        dataset: The dataset.
        seed: The seed.
        world: The processes that share the data. A sampler has to divide it.
        whole_turns: Drop the last batches of an iterable dataset if there is not one for each rank.
        options: The options of torch's `DataLoader`, with a batch size.

    Attributes:
        epoch: The epoch of the next iteration.
        progress: How far the last iteration over an iterable dataset has come.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        seed: int,
        world: World = SINGLE_PROCESS,
        whole_turns: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(dataset, **options)
        self.seed, self.world, self.whole_turns = seed, world, whole_turns
        self.is_iterable = isinstance(dataset, IterableDataset)
        self.epoch = 0
        self._iterations = 0
        self._batches: Callable[[], Any] = lambda: None
        self._persistent: _Workers | None = None
        self.progress: StreamProgress | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of this rank's batches, if the dataset has a length."""
        batches = super().__len__()
        if not self.is_iterable:
            return batches
        turns, rest = divmod(batches, self.world.size)
        return turns + (self.world.rank < rest and not self.whole_turns)

    def __iter__(self) -> Any:
        """Yield this rank's batches of the epoch."""
        return self.read_stream() if self.is_iterable else self.read_samples()

    def read_samples(self, done: int = 0, number: int = 0) -> Iterator[Any]:
        """Yield the batches of a dataset that is read by index, after the first `done` samples.

        Args:
            done: The number of this rank's samples to leave out. The sampler is then an
                `EpochSampler`.
            number: The number of the first batch. Its seed is made from this.
        """
        iteration, epoch, sampler = self._iterate(), self.epoch, self.sampler
        size, drop_last = self.batch_size or 1, self.drop_last

        def tasks() -> Iterator[Task]:  # holds no reference to this loader, which may hold it
            rest = sampler.after(done) if isinstance(sampler, EpochSampler) else sampler
            batches = BatchSampler(rest, size, drop_last)
            return (Task(iteration, epoch, *item) for item in enumerate(batches, number))

        source = Samples(self.dataset, self.collate_fn, (self.seed, self.world.rank), epoch)
        return self._keep(_passed_on(self._workers(source).iterate(tasks)))

    def read_stream(
        self, before: Iterable[int] = (), number: int = 0, state: dict[str, Any] | None = None
    ) -> Iterator[Any]:
        """Yield the batches of an iterable dataset, from its beginning or from a state on.

        Args:
            before: The sizes of batches to yield first, to every rank, for the caller to drop.
            number: The number of the batch after these. Its seed is made from this.
            state: What `progress.state_dict` returned.
        """
        iteration, epoch, size = self._iterate(), self.epoch, self.batch_size
        state = state or {"task": number, "worker": 0, "states": {}}
        sizes, first, idle = list(before), state["task"], state["worker"]

        def tasks() -> Iterator[Task]:
            # The workers that have done their part of the current turn do nothing in it.
            yield from (Task(iteration, epoch, -1, 0) for _ in range(idle))
            yield from (Task(iteration, epoch, done, one) for done, one in enumerate(sizes))
            yield from (Task(iteration, epoch, task, size) for task in count(first))

        source = Stream(
            *(self.dataset, self.collate_fn, (self.seed,), epoch),
            drop_last=self.drop_last,
            states=state["states"],
        )
        workers = self._workers(source, restarts=bool(state["states"]))
        self.progress = StreamProgress(source, state, self.num_workers)
        batches = self.progress.batches(workers.iterate(tasks))
        return self._keep(self._dealt(batches, len(sizes)))

    def _iterate(self) -> int:
        self._iterations += 1
        return self._iterations

    def _keep(self, batches: Iterator[Any]) -> Iterator[Any]:
        self._batches = weakref.ref(batches)
        return batches

    def _workers(self, source: Samples, restarts: bool = False) -> _Workers | _InProcess:
        """Return the workers for an iteration: the persistent ones, unless they are busy."""
        if not self.num_workers and not self.pin_memory:
            return _InProcess(source)
        is_busy = getattr(self._batches(), "gi_frame", None) is not None
        if not self.persistent_workers or is_busy:
            return _Workers(self, source, is_persistent=False)
        if self._persistent is None or restarts:
            self.end_workers()
            self._persistent = _Workers(self, source, is_persistent=True)
            self._ends_workers = weakref.finalize(self, self._persistent.end)
        return self._persistent

    def end_workers(self) -> None:
        """End the persistent workers, if there are any. The next iteration starts new ones."""
        if self._persistent is not None:
            self._persistent = None
            self._ends_workers()

    def _dealt(self, batches: Iterator[Any], before: int) -> Iterator[Any]:
        """Yield the first batches, and of the others those of this rank."""
        yield from islice(batches, before)
        own = None
        # With whole_turns, a batch is kept back until the last rank has one too.
        last = self.world.size - 1 if self.whole_turns else self.world.rank
        for turn, batch in zip(cycle(range(self.world.size)), batches, strict=False):
            if turn == self.world.rank:
                own = batch
            if turn == last:
                yield own


class _InProcess:
    """Loads batches in this process, without the cost of torch's loader, which does no more.

    Args:
        source: What loads the batches.
    """

    def __init__(self, source: Samples) -> None:
        self._source = source

    def iterate(self, tasks: Callable[[], Iterator[Task]]) -> Iterator[Any]:
        """Return an iterator over the results of tasks."""
        return (self._source[task] for task in tasks())


class _Workers:
    """The processes that load batches of a loader, or this process if it only pins their memory.

    Args:
        loader: The loader.
        source: What loads the batches.
        is_persistent: Whether they outlast an iteration.
    """

    def __init__(self, loader: SeededLoader, source: Samples, is_persistent: bool) -> None:
        self._tasks = _Tasks()
        # The seed of workers that persist must not depend on the epoch that they start in.
        seed = loader.seed if is_persistent else loader.seed + loader.epoch
        self._loader: DataLoader[Any] = DataLoader(
            source,
            batch_size=None,
            sampler=self._tasks,
            collate_fn=_unchanged,
            num_workers=loader.num_workers,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=torch.Generator().manual_seed(seed),
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=is_persistent,
            in_order=loader.in_order,
        )

    def iterate(self, tasks: Callable[[], Iterator[Task]]) -> Iterator[Any]:
        """Begin an iteration, and return an iterator over the results of tasks."""
        self._tasks.make = tasks
        return iter(self._loader)

    def end(self) -> None:
        """End the workers. See `end_workers`."""
        end_workers(self._loader)


def end_workers(loader: DataLoader[Any]) -> None:
    """End the persistent workers of a loader of torch, if it has any.

    If the garbage collector frees them, it may free their queues first. Then they are not told to
    end, and torch waits five seconds for each.
    """
    if loader.persistent_workers:
        loader._iterator = None  # noqa: SLF001  torch has no public way


class _Tasks:
    """The tasks of an iteration, as a sampler."""

    make: Callable[[], Iterator[Task]]

    def __iter__(self) -> Iterator[Task]:
        return self.make()  # twice when workers are started


class StreamProgress:
    """How far an iteration over an iterable dataset has come.

    Args:
        source: What loads the batches without workers.
        state: Where the iteration begins.
        workers: The number of workers.
    """

    def __init__(self, source: Stream, state: dict[str, Any], workers: int) -> None:
        self._source, self._workers = source, workers
        self._task, self._worker = state["task"], state["worker"]
        self._states = dict(state["states"])

    def batches(self, results: Iterator[Loaded]) -> Iterator[Any]:
        """Yield the batches in `results` until each worker has come to the end of its share."""
        active = set(range(max(1, self._workers)))
        for loaded in results:
            if loaded.has_batch:
                self._task = loaded.task + 1
                self._worker = (loaded.worker + 1) % max(1, self._workers)
                self._states[loaded.worker] = loaded.state
                yield loaded.batch
            elif loaded.task >= 0:
                active.discard(loaded.worker)
                if self._states.get(loaded.worker) is not None:
                    self._states[loaded.worker] = {"ended": True}
                if not active:
                    return

    def state_dict(self) -> dict[str, Any] | None:
        """Return where to continue; `None` if the dataset has no state."""
        found = self._states if self._workers else {0: self._source.state_dict()}
        # The bytes come from the workers of this process.
        states = {
            worker: pickle.loads(state) if isinstance(state, bytes) else state
            for worker, state in found.items()
        }
        if not states or None in states.values():
            return None
        return {"task": self._task, "worker": self._worker, "states": states}


def _passed_on(batches: Iterator[Any]) -> Iterator[Any]:
    yield from batches  # a generator, which tells whether it has come to its end


def _unchanged(batch: Any) -> Any:
    return batch
