"""What loads batches in the workers of a loader, or in the training's process without workers."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from torch.utils.data import Dataset, get_worker_info

from trainer_torch.data.drawing import (
    Apart,
    generators_of,
    parts_of,
    seed_all,
    seed_globals,
    seed_of,
    tell_epoch,
)


class Task(NamedTuple):
    """A batch to load.

    Attributes:
        iteration: The number of the iteration over the loader, so that workers notice a new one.
        epoch: The epoch.
        number: The number of the batch in the epoch, from 0.
        content: The indices of the samples; for an iterable dataset, how many to take.
    """

    iteration: int
    epoch: int
    number: int
    content: Any


class Loaded(NamedTuple):
    """The result of a task for an iterable dataset.

    Attributes:
        worker: The number of the worker, from 0.
        task: The number of the task.
        has_batch: Whether there is a batch. Otherwise, the worker's share of the data has ended, or
            the task was for no sample.
        batch: The batch.
        state: The worker's state after it, pickled; `None` if there is none.
    """

    worker: int
    task: int
    has_batch: bool
    batch: Any = None
    state: bytes | None = None


class Samples(Dataset[Any]):
    """Loads batches of a dataset that is read by index. Its index is a `Task`.

    Args:
        dataset: The dataset.
        collate: Makes a batch of samples.
        seed: The numbers from which the seed of each batch is made, with its epoch and number.
        epoch: The epoch that `set_epoch` of the dataset got last.
    """

    def __init__(
        self, dataset: Any, collate: Callable[..., Any], seed: tuple[int, ...], epoch: int
    ) -> None:
        self.dataset, self.collate, self.seed, self.epoch = dataset, collate, seed, epoch
        self._iteration = -1
        self._generators: list[Any] = []

    def __getitem__(self, task: Task) -> Any:
        """Return what `task` asks for."""
        if get_worker_info() is not None:
            return self._seeded(task)
        with Apart():
            return self._seeded(task)

    def begin(self) -> None:
        """Begin an iteration."""

    def load(self, task: Task) -> Any:
        """Return what `task` asks for, drawing from seeded generators."""
        if getattr(self.dataset, "__getitems__", None):
            return self.collate(self.dataset.__getitems__(task.content))
        return self.collate([self.dataset[index] for index in task.content])

    def _seeded(self, task: Task) -> Any:
        if task.iteration != self._iteration:
            self._iteration = task.iteration
            self._begin(task.epoch)
        self._seed_all(seed_of(*self.seed, task.epoch, task.number))
        return self.load(task)

    def _begin(self, epoch: int) -> None:
        if (worker := get_worker_info()) is not None:
            object.__setattr__(worker, "dataset", self.dataset)  # as with torch's own loader
        parts = parts_of(self.dataset, self.collate)
        self._generators = generators_of(parts)
        if epoch != self.epoch:  # this is a persistent worker
            self.epoch = epoch
            tell_epoch(parts, epoch)
        self._seed_all(seed_of(*self.seed, epoch))
        self.begin()

    def _seed_all(self, seed: int) -> None:
        seed_globals(seed)
        if self._generators:
            seed_all(self._generators, seed)


class Stream(Samples):
    """Loads batches of an iterable dataset. Each worker goes through an iterator of its own.

    Args:
        rest: The arguments of `Samples`.
        drop_last: Leave out an incomplete batch.
        states: By number of worker, the states in which the first iteration begins.
    """

    def __init__(self, *rest: Any, drop_last: bool, states: dict[int, Any]) -> None:
        super().__init__(*rest)
        self.drop_last = drop_last
        self._states = dict(states)
        self._items: Iterator[Any] | None = None

    def begin(self) -> None:
        """Open the dataset, at its beginning or in the state that is given."""
        state = self._states.pop(_worker(), None)
        self._items = None
        if state is None:
            self._items = iter(self.dataset)
        elif not state["ended"]:
            self._items = self._continued(state["data"])

    def load(self, task: Task) -> Loaded:
        """Return the next batch of this worker."""
        nothing = Loaded(_worker(), task.number, has_batch=False)
        if self._items is None or task.content == 0:
            return nothing
        samples = _take(self._items, task.content)
        if len(samples) < task.content:
            self._items = None
        if not samples or (self.drop_last and self._items is None):
            return nothing
        batch = self.collate(samples)
        # Pickled at once, because the next batch may change the objects in it.
        state = None if get_worker_info() is None else pickle.dumps(self.state_dict())
        return nothing._replace(has_batch=True, batch=batch, state=state)

    def state_dict(self) -> dict[str, Any] | None:
        """Return the state of this worker; `None` if neither the dataset nor its iterator has one.

        The end of the data has a state of its own, because a dataset that has ended may start over.
        """
        has_begun = self._iteration >= 0
        if not has_begun and _worker() in self._states:
            return dict(self._states[_worker()])
        if has_begun and self._items is None:
            return {"ended": True}
        part: Any
        for part in (self._items, self.dataset):
            if has_state(part):
                return {"ended": False, "data": part.state_dict()}
        return None

    def _continued(self, state: Any) -> Iterator[Any]:
        if not has_state(self.dataset):
            items: Any = iter(self.dataset)
            items.load_state_dict(state)
            return items
        self.dataset.load_state_dict(state)
        items = iter(self.dataset)
        if items is self.dataset:  # its __iter__ may have started over
            self.dataset.load_state_dict(state)
        return items


def has_state(data: object) -> bool:
    """Return whether `data` returns and loads a state, without further arguments."""
    save, load = getattr(data, "state_dict", None), getattr(data, "load_state_dict", None)
    if isinstance(data, type) or not callable(save) or not callable(load):
        return False
    try:
        inspect.signature(save).bind()
    except TypeError:
        return False
    except ValueError:  # not written in Python
        pass
    return True


def _take(items: Iterator[Any], count: int) -> list[Any]:
    """Return the next `count` items, or as many as there are.

    A dataset that is its own iterator may start over when it is iterated, so only `next` is called.
    """
    taken: list[Any] = []
    with suppress(StopIteration):
        while len(taken) < count:
            taken.append(next(items))
    return taken


def _worker() -> int:
    worker = get_worker_info()
    return 0 if worker is None else worker.id
