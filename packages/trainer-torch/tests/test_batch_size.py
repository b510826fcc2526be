"""The number of samples in a batch is that of the data, whatever the batch looks like."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SubsetRandomSampler

from trainer_torch.data.batch_size import LoadedSizes, count_samples

X, Y = torch.zeros(4, 6), torch.zeros(4, dtype=torch.long)
LABELS_OF_BOXES = {"boxes": torch.zeros(2, 4), "labels": torch.zeros(2)}
Pair = namedtuple("Pair", ["x", "y"])


@dataclass
class Data:
    x: Any
    y: Any


class Graph:
    """An object of a library, into which nobody looks."""


BATCHES = {
    "tensor": X,
    "array": np.zeros((4, 2)),
    "tuple": (X, Y),
    "mapping": {"x": X, "labels": Y},
    "named tuple": Pair(X, Y),
    "data class": Data(X, Y),
    "scalar first": {"temperature": torch.tensor(0.5), "x": X, "labels": Y},
    "number first": (0.5, X, Y),
    "weights of classes first": {"weights": torch.ones(3), "x": X, "labels": Y},
    "edges first": {"edges": torch.zeros(2, 30), "nodes": torch.zeros(17, 5), "labels": Y},
    "time first": {"x": torch.zeros(9, 4, 6), "labels": Y},
    "time first in everything": (torch.zeros(9, 4, 6), torch.zeros(9, 4)),
    "texts": {"texts": ["a", "b", "c", "d"], "labels": Y},
    "texts alone": ["a", "b", "c", "d"],
    "images of different sizes": {"images": [torch.zeros(3, n, n) for n in (5, 6, 7, 8)]},
    "lists of images and boxes": (
        tuple(torch.zeros(3, n, n) for n in (5, 6, 7, 8)),
        (LABELS_OF_BOXES,) * 4,
    ),
    "lists of texts and numbers": (["a", "b", "c", "d"], [1, 2.5, 3, 4]),
    "a mapping for each sample": [{"x": torch.zeros(6), "y": torch.tensor(1)}] * 4,
    "a tuple for each sample": [(torch.zeros(3, n), torch.tensor(1)) for n in (5, 6, 7, 8)],
    "parts": {"x": (X, torch.zeros(4, 9)), "labels": [Y, Y]},
    "packed sequences": (pack_sequence([torch.zeros(n, 2) for n in (5, 4, 2, 1)]), Y),
    "nested tensor": {"x": torch.nested.nested_tensor([torch.zeros(n) for n in (5, 6, 7, 8)])},
    "object": Graph(),
    "object and labels": (Graph(), Y),
    "object with attributes": SimpleNamespace(x=X, y=Y),
    "nothing to be seen": {"n": 3, "name": "text"},
}


@pytest.mark.parametrize("name", BATCHES)
def test_the_samples_are_counted_in_whatever_the_loader_has_put_four_into(name: str) -> None:
    assert count_samples(BATCHES[name], loaded=4) == 4


KNOWN_ALONE = (
    *("tensor", "array", "tuple", "mapping", "named tuple", "data class", "scalar first"),
    *("number first", "texts", "texts alone", "packed sequences", "a mapping for each sample"),
    *("nested tensor", "object and labels", "object with attributes", "parts"),
    *("weights of classes first", "lists of images and boxes", "lists of texts and numbers"),
)


@pytest.mark.parametrize("name", KNOWN_ALONE)
def test_a_batch_may_tell_its_size_without_the_loader(name: str) -> None:
    assert count_samples(BATCHES[name], loaded=None) == 4


@pytest.mark.parametrize("name", set(BATCHES) - set(KNOWN_ALONE) - {"time first in everything"})
def test_without_the_loader_nothing_is_guessed(name: str) -> None:
    assert count_samples(BATCHES[name], loaded=None) is None


@pytest.mark.parametrize(
    "batch",
    [
        {"x": X[:3], "labels": Y[:3]},
        (X[:3], Y[:3]),
        (X[:3], X[:3]),
        (X[:3], torch.zeros(3, 1)),
        {"texts": ["a", "b", "c"], "labels": Y[:3]},
        [{"x": torch.zeros(6)}] * 3,
        {"weights": torch.ones(5), "x": X[:3], "labels": Y[:3]},
        SimpleNamespace(x=X[:3], y=Y[:3]),
    ],
)
def test_samples_that_the_collator_has_left_out_are_not_counted(batch: Any) -> None:
    assert count_samples(batch, loaded=4) == 3


def test_rows_that_the_collator_has_made_of_each_sample_count() -> None:
    assert count_samples({"x": torch.zeros(10, 6), "labels": torch.zeros(10)}, loaded=4) == 10


@pytest.mark.parametrize(
    "batch",
    [
        (torch.ones(5), X[:3], Y[:3]),
        {"weights": torch.ones(5), "edges": torch.ones(2, 5), "x": X[:3], "targets": Y[:3]},
        {"images": [torch.zeros(3, 8, 8)] * 2},
        (torch.zeros(1, 6), torch.zeros(1, 6)),
    ],
    ids=["weights", "edges", "images", "a pair that may be two samples"],
)
def test_what_can_be_read_in_two_ways_is_not_guessed(batch: Any) -> None:
    assert count_samples(batch, loaded=2 if len(batch) == 2 else 4) is None


def sizes(loader: Any, batches: int) -> list[int | None]:
    loaded = LoadedSizes(loader)
    return [loaded.of(index) for index in range(batches)]


def test_a_loader_of_indices_knows_what_it_puts_into_each_batch() -> None:
    data: Any = list(range(10))
    assert sizes(DataLoader(data, batch_size=4), 4) == [4, 4, 2, None]
    assert sizes(DataLoader(data, batch_size=4, drop_last=True), 2) == [4, 4]
    sampler = SubsetRandomSampler(range(5))
    assert sizes(DataLoader(data, batch_size=4, sampler=sampler), 2) == [4, 1]


class Stream(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(X)

    def __len__(self) -> int:
        return 4


class Halves(DataLoader[Any]):
    """Divides each batch into two."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield from batch.chunk(2)


class Uneven(BatchSampler):
    def __iter__(self) -> Iterator[list[int]]:
        yield [0]
        yield [1, 2, 3]


ROWS: Any = X


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Stream(), batch_size=2),
        DataLoader(ROWS, batch_size=None),
        Halves(ROWS, batch_size=4),
        DataLoader(ROWS, batch_sampler=Uneven(range(4), 2, False)),
        [X, X],
    ],
    ids=["iterable", "batches", "subclass", "batch sampler", "list"],
)
def test_other_loaders_are_not_asked(loader: Any) -> None:
    assert sizes(loader, 2) == [None, None]
