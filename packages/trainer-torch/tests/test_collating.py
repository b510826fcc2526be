"""Samples of plain lists and numbers become batches of tensors, as in transformers."""

from __future__ import annotations

from collections import UserDict
from pathlib import Path
from typing import Any

import pytest
import torch
from small import arguments
from torch import Tensor, nn
from torch.utils.data import default_collate

from trainer_torch import Trainer
from trainer_torch.data.collating import default_collator


@pytest.mark.parametrize(
    ("values", "shape", "dtype"),
    [
        ([[1, 2, 3], [4, 5, 6]], (2, 3), torch.int64),
        ([[[1.0], [2.0]], [[3.0], [4.0]]], (2, 2, 1), torch.float32),
        ([[True, False], [False, True]], (2, 2), torch.bool),
        ([0.5, 1.5], (2,), torch.float32),
        ([1, 2], (2,), torch.int64),
    ],
)
def test_lists_and_numbers_become_a_tensor(
    values: list[Any], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    batch = default_collator([{"x": value} for value in values])["x"]
    assert (tuple(batch.shape), batch.dtype) == (shape, dtype)
    assert batch.tolist() == values


@pytest.mark.parametrize(
    "samples",
    [
        [(torch.ones(2), 1), (torch.zeros(2), 0)],
        [{"texts": ["a", "b"]}, {"texts": ["c", "d"]}],
        [{"crops": [torch.ones(2), torch.ones(2)]}, {"crops": [torch.ones(2), torch.ones(2)]}],
        [[1, 2], [3, 4]],
        [{"x": []}, {"x": []}],
    ],
    ids=["tuples", "texts", "tensors", "lists", "empty"],
)
def test_all_else_is_as_with_torch(samples: list[Any]) -> None:
    assert repr(default_collator(samples)) == repr(default_collate(samples))


def test_a_mapping_of_tensors_keeps_its_type() -> None:
    batch = default_collator([UserDict(x=torch.ones(2)), UserDict(x=torch.ones(2))])
    assert type(batch) is UserDict


def test_samples_of_different_lengths_are_refused() -> None:
    with pytest.raises(RuntimeError, match="equal size"):
        default_collator([{"x": [1, 2]}, {"x": [1]}])


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(10, 4), nn.Linear(4, 1)

    def forward(self, input_ids: Tensor, labels: Tensor) -> Any:
        values = self.head(self.embedding(input_ids).mean(1)).squeeze(-1)
        return nn.functional.mse_loss(values, labels), values


def test_a_dataset_of_plain_lists_trains_and_evaluates(tmp_path: Path) -> None:
    samples: Any = [{"input_ids": [number, 1, 2], "labels": float(number)} for number in range(8)]
    made = Trainer(
        Regression(),
        arguments(tmp_path, num_train_epochs=1, eval_strategy="epoch"),
        train_dataset=samples,
        eval_dataset=samples,
    )
    made.train()
    assert made.predict(samples).predictions.shape == (8,)
