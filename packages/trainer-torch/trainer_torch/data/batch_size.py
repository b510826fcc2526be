"""The number of samples in a batch: what the data loader puts into it, and what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from trainer_torch.data.batches import field_names, named_labels_of
from trainer_torch.data.loading import SeededLoader

Shape = tuple[int, ...]


class LoadedSizes:
    """How many samples a data loader puts into each of its batches.

    That is unknown for an iterable dataset, for a batch sampler of the user, and for a loader that
    is not torch's.

    Args:
        loader: The loader, at the beginning of an epoch.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._size = self._samples = 0
        if (
            isinstance(loader, DataLoader)
            and type(loader).__iter__ in (DataLoader.__iter__, SeededLoader.__iter__)
            and type(loader.batch_sampler) is BatchSampler
            and not isinstance(loader.dataset, IterableDataset)
            and getattr(loader, "in_order", True)
        ):
            self._size = loader.batch_sampler.batch_size
            self._samples = len(loader.sampler)  # type: ignore[arg-type]

    def of(self, index: int, done: int | None = None) -> int | None:
        """Return the number of samples in the batch number `index`, from 0; `None` if unknown.

        `done` is the number of samples before that batch, if it is not `index` full batches.
        """
        left = self._samples - (index * self._size if done is None else done)
        return min(self._size, left) if left > 0 else None


def count_samples(
    batch: Any, loaded: int | None, label_names: Sequence[str] | None = None
) -> int | None:
    """Return the number of samples in `batch`, or `None` if it is unknown.

    It is the length of the tensors, the arrays and the lists of samples in the batch. If they are
    of several lengths, as with weights of classes or edges of graphs, it is the length that is most
    frequent or that the labels have; but only if the data loader confirms it, or both agree.

    `loaded` also decides if it is the second dimension of everything, as in batches of sequences
    with the time first. Where it contradicts the only length, a collator has left samples out or
    divided them.

    Args:
        batch: A batch.
        loaded: The number of samples that the data loader has put into it, if that is known.
        label_names: The names of the labels instead of `labels`.
    """
    shapes = _shapes_in(batch, loaded)
    if shapes is None:
        return None
    if not shapes:
        return loaded
    lengths = [shape[0] for shape in shapes]
    if lengths.count(lengths[0]) < len(lengths):
        return _likely_length(Counter(lengths), loaded, named_labels_of(batch, label_names))
    length = lengths[0]
    if loaded is None or loaded == length:
        return length
    return loaded if all(shape[1:2] == (loaded,) for shape in shapes) else length


def _likely_length(lengths: Counter[int], loaded: int | None, labels: Any) -> int | None:
    """Return the one of several `lengths` in a batch that is the number of samples, or `None`."""
    (most, times), (_, times_of_next) = lengths.most_common(2)
    frequent = most if times > times_of_next else None
    of_labels = _shapes_in(labels, loaded) or []
    if loaded in lengths and (loaded == frequent or any(loaded in s[:2] for s in of_labels)):
        return loaded
    return frequent if of_labels and all(shape == (frequent,) for shape in of_labels) else None


def _shapes_in(value: Any, loaded: int | None) -> list[Shape] | None:
    if type(value) is dict and all(map(_has_length, value.values())):  # by far the most frequent
        return [one.shape for one in value.values()]
    found = _Found()
    found.look_into(value)
    if not found.shapes and not found.lists and hasattr(value, "__dict__"):  # an object
        found.look_into([item for name, item in vars(value).items() if not name.startswith("_")])
    return found.resolve(loaded, of_parts=_is_tuple_of_tensors(value))


@dataclass
class _Found:
    """The shapes in a batch. A number alone has none.

    Attributes:
        shapes: Those of tensors and arrays, and the lengths of lists with an item for each
            sample.
        lists: Tuples and lists of items that are alike: an item for each sample, or for each part
            of all samples. Each is given as its length and the shapes in it.
    """

    shapes: list[Shape] = field(default_factory=list)
    lists: list[tuple[int, list[Shape]]] = field(default_factory=list)

    def look_into(self, value: Any) -> None:
        """Add the shapes in `value`."""
        if isinstance(value, PackedSequence):
            self.shapes.append((int(value.batch_sizes[0]),))
        elif isinstance(value, (Tensor, np.ndarray)):
            if isinstance(value, Tensor) and value.is_nested:
                self.shapes.append((len(value.unbind()),))
            elif value.ndim > 0:
                self.shapes.append(tuple(value.shape))
        elif isinstance(value, Mapping):
            for item in value.values():
                self.look_into(item)
        elif names := field_names(value):
            for name in names:
                self.look_into(getattr(value, name))
        elif isinstance(value, (tuple, list)) and value:
            self._look_into_list(value)

    def resolve(self, loaded: int | None, of_parts: bool) -> list[Shape] | None:
        """Return the shapes of everything, with each of the lists read in one of both ways.

        Args:
            loaded: As in `count_samples`.
            of_parts: Whether the batch is a list of tensors. Its items are passed to the model one
                by one, so they are parts rather than samples.
        """
        shapes, size = list(self.shapes), loaded
        if size is None and len({shape[0] for shape in shapes}) == 1:
            size = shapes[0][0]
        for length, parts in self.lists:
            lengths = {shape[0] for shape in parts}
            if lengths == {size} or (of_parts and length != size):
                shapes += parts
            elif of_parts and length == 2 and len(lengths) == 1:
                return None  # two samples, or a pair of parts from a collator that left samples out
            elif length == size:
                shapes.append((length,))
            else:
                shapes += [(length,), *parts]
        return shapes

    def _look_into_list(self, items: Sequence[Any]) -> None:
        kinds = {_kind(item) for item in items}
        if len({_kind_inside(item) for item in items} - {None}) > 1:
            kinds = set()  # such as images and targets: parts, because samples are alike
        if len(kinds) == 1 and isinstance(items[0], (Tensor, np.ndarray, tuple, list)):
            inside = _Found()
            for item in items:
                inside.look_into(item)
            parts = inside.shapes + [(length,) for length, _ in inside.lists]
            self.lists.append((len(items), parts))
        elif len(kinds) == 1 and isinstance(items[0], Mapping):
            self.shapes.append((len(items),))  # a mapping for each sample
        elif any(_kind(item) is not None for item in items):
            for item in items:
                self.look_into(item)
        else:
            self.shapes.append((len(items),))  # of texts, numbers or objects


def _has_length(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and not value.is_nested


def _is_tuple_of_tensors(batch: Any) -> bool:
    return isinstance(batch, (tuple, list)) and all(isinstance(item, Tensor) for item in batch)


def _kind(item: Any) -> Any:
    """Return what items for each sample have in common; `None` for what has no shape in it."""
    if isinstance(item, (Tensor, np.ndarray)):
        return type(item), item.dtype, item.ndim
    if isinstance(item, Mapping):
        return tuple(item)
    if isinstance(item, (tuple, list)):
        return type(item)
    return tuple(names) if (names := field_names(item)) else None


def _kind_inside(item: Any) -> Any:
    """Return what a list in a batch holds; `None` for an empty one, and for what is no list."""
    if not isinstance(item, (tuple, list)) or not item:
        return None
    first = item[0]
    return "number" if isinstance(first, Real) else type(first)
