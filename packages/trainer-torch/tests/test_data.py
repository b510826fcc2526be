"""The order of the data, the batches of a step, and how long a training is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small import arguments, data
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from trainer_torch.data.data_loaders import train_dataloader
from trainer_torch.data.position import LoopPosition
from trainer_torch.data.reading import begin_epoch
from trainer_torch.data.samplers import EpochSampler
from trainer_torch.run.plan import Plan, plan_training


class Stream(IterableDataset[int]):
    """Numbers of an unknown length."""

    def __iter__(self) -> Iterator[int]:
        yield from range(10)


def at(epoch: int, batches: int = 0, batch_size: int = 2) -> LoopPosition:
    """Return the position after some batches of an epoch."""
    position = LoopPosition(torch.device("cpu"), batch_size=batch_size)
    position.begin_epoch(epoch)
    for _ in range(batches):
        position.add_batch()
    return position


def indices(tmp_path: Path, epoch: int, skip: int = 0, **changed: Any) -> list[list[int]]:
    """Return the samples in the batches, of two, of an epoch over the numbers 0 to 9."""
    args = arguments(tmp_path, per_device_train_batch_size=2, **changed)
    loader = train_dataloader(range(10), None, args)  # type: ignore[arg-type]
    return [batch.tolist() for batch in begin_epoch(loader, args, at(epoch, skip))]


def test_every_sample_comes_once_in_an_epoch(tmp_path: Path) -> None:
    batches = indices(tmp_path, epoch=0)
    assert sorted(number for batch in batches for number in batch) == list(range(10))


def test_the_order_depends_on_the_seed_and_the_epoch_only(tmp_path: Path) -> None:
    first = indices(tmp_path, epoch=0)
    torch.rand(3)
    assert indices(tmp_path, epoch=0) == first
    assert indices(tmp_path, epoch=1) != first
    assert indices(tmp_path, epoch=0, seed=1) != first
    assert indices(tmp_path, epoch=0, seed=1, data_seed=42) == first


def test_an_epoch_can_begin_in_its_middle(tmp_path: Path) -> None:
    assert indices(tmp_path, epoch=3, skip=2) == indices(tmp_path, epoch=3)[2:]


def test_skipping_reads_none_of_the_skipped_samples() -> None:
    sampler = EpochSampler(range(10), seed=0)
    assert sampler.after(7) == list(sampler)[7:]
    assert len(sampler) == 10


def test_a_loader_of_the_user_s_own_is_skipped_by_reading(tmp_path: Path) -> None:
    loader = DataLoader(range(10), batch_size=2)  # type: ignore[arg-type]
    batches = begin_epoch(loader, arguments(tmp_path), at(0, 3))
    assert [batch.tolist() for batch in batches] == [[6, 7], [8, 9]]


def test_drawing_batches_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    indices(tmp_path, epoch=0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changed", "plan"),
    [
        ({"num_train_epochs": 2}, Plan(max_steps=10, num_train_epochs=2, batches_per_epoch=5)),
        ({"num_train_epochs": 1.5}, Plan(max_steps=8, num_train_epochs=2, batches_per_epoch=5)),
        (
            {"gradient_accumulation_steps": 2},
            Plan(max_steps=6, num_train_epochs=2, batches_per_epoch=5),
        ),
        ({"num_train_epochs": 1.2}, Plan(max_steps=6, num_train_epochs=2, batches_per_epoch=5)),
        ({"num_train_epochs": 1.1}, Plan(max_steps=6, num_train_epochs=2, batches_per_epoch=5)),
        ({"max_steps": 7}, Plan(max_steps=7, num_train_epochs=2, batches_per_epoch=5)),
    ],
)
def test_a_plan_counts_steps_and_epochs(
    tmp_path: Path, changed: dict[str, Any], plan: Plan
) -> None:
    args = arguments(tmp_path, **changed)
    assert plan_training(args, train_dataloader(data(), None, args)) == plan


def test_data_without_a_length_needs_max_steps(tmp_path: Path) -> None:
    args = arguments(tmp_path)
    with pytest.raises(ValueError, match=r"max_steps"):
        plan_training(args, train_dataloader(Stream(), None, args))


@pytest.mark.parametrize("changed", [{}, {"dataloader_drop_last": True}])
def test_no_batch_to_train_on_is_an_error(tmp_path: Path, changed: dict[str, Any]) -> None:
    args = arguments(tmp_path, **changed)
    with pytest.raises(ValueError, match="train_dataset"):
        plan_training(args, train_dataloader(data(3 if changed else 0), None, args))


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": RandomSampler(range(10))}])
def test_a_loader_of_the_user_s_own_without_a_seed_is_seeded_for_each_epoch(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    loader = DataLoader(range(10), batch_size=2, **options)  # type: ignore[arg-type]
    args = arguments(tmp_path)
    first = [batch.tolist() for batch in begin_epoch(loader, args, at(0, 0))]
    torch.rand(3)
    assert [batch.tolist() for batch in begin_epoch(loader, args, at(0, 2))] == first[2:]
    assert [batch.tolist() for batch in begin_epoch(loader, args, at(1, 0))] != first


def test_everything_that_counts_epochs_is_told(tmp_path: Path) -> None:
    class Counts(SequentialSampler):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

    told: list[int] = []
    batches = BatchSampler(Counts(range(10)), 2, drop_last=False)
    begin_epoch(DataLoader(range(10), batch_sampler=batches), arguments(tmp_path), at(3))  # type: ignore[arg-type]
    assert told == [3]


def test_a_share_of_an_epoch_is_exact(tmp_path: Path) -> None:
    args = arguments(tmp_path, num_train_epochs=1.1, per_device_train_batch_size=1)
    assert 1.1 * 50 > 55  # as floats
    assert plan_training(args, train_dataloader(data(50), None, args)).max_steps == 55
