"""The order of the training data by its strategy, also over ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import arguments, net
from torch.utils.data import IterableDataset

from trainer_torch import Trainer
from trainer_torch.data.data_loaders import train_dataloader
from trainer_torch.data.samplers import EpochSampler, grouped_by_length, sequential
from trainer_torch.ranks.world import World

LENGTHS = [(7 * index) % 40 + 1 for index in range(400)]


class Of(World):
    """One of several processes."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def order_of(order: Any, samples: int = 400, epoch: int = 0) -> list[int]:
    sampler = EpochSampler(range(samples), 3, order=order)
    sampler.set_epoch(epoch)
    return list(sampler)


def spread(indices: list[int], size: int) -> float:
    """Return the mean difference between the longest and the shortest sample of a batch."""
    batches = [indices[first : first + size] for first in range(0, len(indices), size)]
    lengths = [[LENGTHS[index] for index in batch] for batch in batches]
    return sum(max(batch) - min(batch) for batch in lengths) / len(batches)


def test_grouping_by_length_keeps_similar_samples_together() -> None:
    order = order_of(grouped_by_length(LENGTHS, group=8))
    assert sorted(order) == list(range(400))
    assert spread(order, 8) < spread(order_of(sequential), 8) / 3
    assert LENGTHS[order[0]] == max(LENGTHS)
    assert order != order_of(grouped_by_length(LENGTHS, group=8), epoch=1)


@pytest.mark.parametrize("samples", [1, 7, 33])
def test_few_samples_are_grouped_too(samples: int) -> None:
    order = order_of(grouped_by_length(LENGTHS[:samples], group=8), samples)
    assert sorted(order) == list(range(samples))


def test_ranks_take_similar_samples_at_the_same_time() -> None:
    ranks = [
        list(EpochSampler(range(400), 3, Of(rank, 2), grouped_by_length(LENGTHS, 16)))
        for rank in range(2)
    ]
    assert sorted(ranks[0] + ranks[1]) == list(range(400))
    both = [index for pair in zip(*ranks, strict=True) for index in pair]
    assert spread(both, 16) < spread(order_of(sequential), 16) / 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_grouped_epoch_continues_in_its_middle(rank: int) -> None:
    sampler = EpochSampler(range(400), 3, Of(rank, 2), grouped_by_length(LENGTHS, 16))
    assert sampler.after(60) == list(sampler)[60:]


def test_sequential_keeps_the_order(tmp_path: Path) -> None:
    args = arguments(tmp_path, train_sampling_strategy="sequential")
    loader = train_dataloader(range(10), None, args)  # type: ignore[arg-type]
    assert [index for batch in loader for index in batch.tolist()] == list(range(10))


def of_length(length: int, name: str) -> dict[str, Any]:
    return {"labels": 0, name: length if name == "size" else [0] * length}


class Columns(list[Any]):
    """A dataset with columns, as those of Hugging Face are."""

    column_names = ("size",)

    def __getitem__(self, key: Any) -> Any:
        return LENGTHS if key == "size" else super().__getitem__(key)


DATA = {
    "input_ids": [of_length(length, "input_ids") for length in LENGTHS],
    "size in samples": [of_length(length, "size") for length in LENGTHS],
    "column": Columns(of_length(1, "input_ids") for _ in LENGTHS),
    "another input": [of_length(length, "pixels") for length in LENGTHS],
}


class Processor:
    """Names the inputs of a model."""

    model_input_names = ("pixels",)


@pytest.mark.parametrize("name", DATA)
def test_lengths_come_from_where_transformers_takes_them(tmp_path: Path, name: str) -> None:
    trainer = Trainer(
        net(),
        arguments(tmp_path, train_sampling_strategy="group_by_length", length_column_name="size"),
        train_dataset=DATA[name],  # type: ignore[arg-type]
        processing_class=Processor() if name == "another input" else None,
        compute_loss=lambda model, batch, **kwargs: None,
    )
    order = list(trainer.get_train_dataloader().sampler)
    assert order == list(EpochSampler(LENGTHS, 42, order=grouped_by_length(LENGTHS, 4)))


def test_samples_of_unknown_length_cannot_be_grouped(tmp_path: Path) -> None:
    args = arguments(tmp_path, train_sampling_strategy="group_by_length")
    for data in ([(1, 2)], [{"labels": 1}]):
        with pytest.raises(ValueError, match="length_column_name"):
            train_dataloader(data, None, args)  # type: ignore[arg-type]


def test_a_strategy_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_rebalance.*group_by_length"):
        arguments(tmp_path, train_sampling_strategy="batch_rebalance")


def test_grouping_an_iterable_dataset_is_said_to_have_no_effect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Numbers(IterableDataset[int]):
        def __iter__(self) -> Any:
            return iter(range(4))

    args = arguments(tmp_path, train_sampling_strategy="group_by_length")
    assert [batch.tolist() for batch in train_dataloader(Numbers(), None, args)] == [[0, 1, 2, 3]]
    assert sum("group_by_length" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"dataloader_persistent_workers": True},
        {"dataloader_prefetch_factor": 2},
        {"dataloader_multiprocessing_context": "fork"},
    ],
)
def test_arguments_of_workers_need_workers(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        arguments(tmp_path, **changed)
    assert arguments(tmp_path, dataloader_num_workers=1, **changed)


def test_an_order_by_speed_is_said_not_to_be_exact(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = arguments(tmp_path, dataloader_num_workers=2, dataloader_in_order=False)
    assert train_dataloader(range(4), None, args).in_order is False  # type: ignore[arg-type]
    assert sum("dataloader_in_order" in record.getMessage() for record in caplog.records) == 1


def test_a_start_method_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'thread'.*fork"):
        arguments(tmp_path, dataloader_num_workers=1, dataloader_multiprocessing_context="thread")


def test_the_draws_of_a_dataset_that_is_measured_do_not_reach_the_training(tmp_path: Path) -> None:
    class Draws(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            torch.rand(1)
            return super().__getitem__(index)

    state = torch.get_rng_state()
    args = arguments(tmp_path, train_sampling_strategy="group_by_length")
    train_dataloader(Draws(DATA["input_ids"]), None, args)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)
