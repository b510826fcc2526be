"""Predictions and labels of batches become those of all samples, in whatever form they come."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer_torch.data.joining import PADDING, join, to_cpu, to_numpy

Pair = namedtuple("Pair", ["first", "second"])


@dataclass
class Boxes:
    corners: Tensor
    scores: Tensor


def image(boxes: int) -> dict[str, Tensor]:
    return {"boxes": torch.ones(boxes, 4), "labels": torch.zeros(boxes)}


def test_tensors_and_arrays_become_one_array() -> None:
    joined = join([torch.zeros(4, 3), np.ones((2, 3), np.float32)], [4, 2])
    assert joined.shape == (6, 3)
    assert joined.dtype == np.float32


def test_a_batch_of_one_sample_may_have_lost_its_dimension() -> None:
    assert join([torch.zeros(4), torch.tensor(1.0)], [4, 1]).tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.int8])
def test_shorter_batches_are_padded(dtype: torch.dtype) -> None:
    joined = join([torch.ones(2, 3, dtype=dtype), torch.ones(1, 5, dtype=dtype)], [2, 1])
    p = PADDING
    assert joined.tolist() == [[1, 1, 1, p, p], [1, 1, 1, p, p], [1, 1, 1, 1, 1]]
    assert joined.dtype == torch.empty(0, dtype=dtype).numpy().dtype


def test_all_dimensions_but_the_first_are_padded() -> None:
    joined = join([torch.ones(1, 2, 4), torch.ones(2, 3, 1)], [1, 2])
    assert joined.shape == (3, 3, 4)
    assert (joined == 1).sum() == 2 * 4 + 2 * 3


@pytest.mark.parametrize(
    "batches",
    [
        [torch.ones(2, 3), torch.ones(2, 3, 1)],
        [torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)],
        [torch.ones(2, 3, dtype=torch.uint8), torch.ones(2, 4, dtype=torch.uint8)],
    ],
    ids=["dimensions", "bool", "uint8"],
)
def test_what_cannot_be_padded_is_an_error_that_names_the_shapes(batches: Any) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, (4|3, 1)\).*data_collator"):
        join(batches, [2, 2])


@pytest.mark.parametrize("sizes", [[4, 2], [None, None]])
@pytest.mark.parametrize("container", [list, tuple])
def test_a_mapping_for_each_sample_becomes_one_list(container: Any, sizes: Any) -> None:
    batches = [container(image(n) for n in (1, 0, 2, 5)), container(image(n) for n in (3, 4))]
    joined = join(batches, sizes)
    assert [len(found["boxes"]) for found in joined] == [1, 0, 2, 5, 3, 4]
    assert isinstance(joined[0]["boxes"], np.ndarray)


def test_a_data_class_for_each_sample_becomes_one_list() -> None:
    batches = [[Boxes(torch.ones(n, 4), torch.ones(n)) for n in (1, 2)]] * 2
    assert [len(found.scores) for found in join(batches, [2, 2])] == [1, 2, 1, 2]


@pytest.mark.parametrize(
    "lengths", [((5, 6, 7), (8,)), ((3, 3, 3), (3,)), ((3, 3, 3), (1,)), ((2, 1, 1), (1,))]
)
def test_a_tensor_for_each_sample_becomes_one_list(lengths: Any) -> None:
    batches = [[torch.ones(n, 2) for n in batch] for batch in lengths]
    assert [len(array) for array in join(batches, [3, 1])] == [*lengths[0], *lengths[1]]


def test_numbers_for_each_sample_as_tensors_become_one_list() -> None:
    assert join([[torch.tensor(1), torch.tensor(2)], [torch.tensor(3)]], [2, 1]) == [1, 2, 3]


@pytest.mark.parametrize("sizes", [[4, 2], [None, None], [2, 2]])
def test_parts_of_all_samples_are_joined_one_by_one(sizes: Any) -> None:
    first, second = sizes[0] or 4, sizes[1] or 2
    batches = [(torch.ones(n, 3), torch.ones(n), torch.tensor(0.5)) for n in (first, second)]
    joined = join(batches, sizes)
    assert [part.shape for part in joined] == [(first + second, 3), (first + second,), (2,)]


def test_a_named_tuple_keeps_its_names() -> None:
    joined = join([Pair(torch.ones(2), torch.zeros(2))] * 2, [2, 2])
    assert joined.second.tolist() == [0, 0, 0, 0]


def test_mappings_and_data_classes_become_mappings_of_arrays() -> None:
    for batch in (image(2), Boxes(torch.ones(2, 4), torch.zeros(2))):
        joined = join([batch, batch], [2, 2])
        assert [array.shape for array in joined.values()] == [(4, 4), (4,)]


def test_several_named_predictions_are_no_array_by_mistake() -> None:
    joined = join([image(2)], [2])
    with pytest.raises(TypeError, match=r"boxes.*labels"):
        np.argmax(joined, -1)


@pytest.mark.parametrize(
    "batches",
    [
        [{"a": torch.ones(1)}, {"b": torch.ones(1)}],
        [torch.ones(1), None],
        [torch.ones(1), {"a": torch.ones(1)}],
        [(torch.ones(2), torch.ones(2)), (torch.ones(2),)],
    ],
)
def test_batches_of_different_structures_are_an_error(batches: Any) -> None:
    with pytest.raises(ValueError, match="batches"):
        join(batches, [5, 5])


def test_texts_become_one_list_and_what_is_left_stays_by_batch() -> None:
    assert join([["a", "b"], ["c"]], [2, 1]) == ["a", "b", "c"]
    assert join([0.5, 0.25], [2, 1]) == [0.5, 0.25]
    assert join([None, None], [2, 1]) is None
    assert join([], []) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_types_that_numpy_does_not_have_become_float32(dtype: torch.dtype) -> None:
    assert to_numpy({"a": [torch.ones(2, dtype=dtype)]})["a"][0].dtype == np.float32
    assert join([torch.ones(2, dtype=dtype)], [2]).dtype == np.float32


def test_a_part_of_a_tensor_does_not_keep_all_of_it() -> None:
    assert to_cpu(torch.ones(8, 1000)[:, 0]).untyped_storage().nbytes() == 8 * 4


def test_sparse_tensors_become_dense_and_nested_ones_a_list_of_samples() -> None:
    nested = torch.nested.nested_tensor([torch.ones(n) for n in (1, 3)])
    sparse, samples = to_cpu((torch.eye(2).to_sparse(), nested))
    assert join([sparse, sparse], [2, 2]).tolist() == [[1, 0], [0, 1]] * 2
    assert [len(sample) for sample in join([samples, samples], [2, 2])] == [1, 3, 1, 3]
