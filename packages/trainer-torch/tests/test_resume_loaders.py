"""Order and exact resumption with data loaders and samplers of one's own."""

from __future__ import annotations

import gc
import multiprocessing
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from resuming import EVERY_STEP, StopAt
from small import arguments, compute_loss, data, net
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
)

from callback_core import TrainerCallback
from trainer_torch import Trainer

FEATURES, LABELS = data(12)[:]


class Numbered(Dataset[Any]):
    """Samples that start with their number, the epoch, and noise of each generator."""

    def __init__(self, noise: bool = False) -> None:
        self.epoch, self.noise = 0, noise

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(FEATURES)

    def __getitem__(self, index: int) -> Any:
        drawn = float(torch.rand(1)) + random.random() + np.random.rand() if self.noise else 0.0
        return torch.tensor([float(index), float(self.epoch), drawn, 1.0]), LABELS[index]


class Seen:
    """A `compute_loss` that keeps the batches, and draws random numbers."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        self.batches.append(batch[0][:, :3].tolist())
        return compute_loss(model, [batch[0] + 0.01 * torch.rand(4) + random.random(), batch[1]])


class WithLoader(Trainer):
    """Has a data loader of its own."""

    def __init__(self, make: Any, output_dir: Path, *callbacks: Any, **changed: Any) -> None:
        self.make, self.seen = make, Seen()
        args = arguments(output_dir, **{"num_train_epochs": 3, **EVERY_STEP, **changed})
        super().__init__(net(), args, compute_loss=self.seen, callbacks=callbacks)

    def get_train_dataloader(self) -> Any:
        return self.make()


def assert_exact(tmp_path: Path, make: Any, *steps: int, **changed: Any) -> list[Any]:
    """Assert that a resumption at each of `steps` sees the same, and return the batches."""
    whole = WithLoader(make, tmp_path, **changed)
    whole.train()
    for step in steps:
        random.seed(step)
        resumed = WithLoader(make, tmp_path / f"from-{step}", **changed)
        resumed.train(tmp_path / f"checkpoint-{step}")
        left = len(resumed.seen.batches)
        assert resumed.seen.batches == whole.seen.batches[-left:], step
        assert resumed.state.global_step == whole.state.global_step
        for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
            assert torch.equal(one, other), step
    return whole.seen.batches


class Shuffles(Sampler[int]):
    """Shuffles with a function."""

    def __init__(self, shuffle: Any) -> None:
        self.shuffle = shuffle

    def __len__(self) -> int:
        return len(FEATURES)

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(FEATURES)))
        self.shuffle(order)
        yield from order


class OwnGenerator(Shuffles):
    """Shuffles with a generator of its own."""

    def __init__(self, generator: Any) -> None:
        super().__init__(generator.shuffle)
        self.rng = generator


class OwnTorchGenerator(Shuffles):
    """Shuffles with a generator of torch, under a name of its own."""

    def __init__(self) -> None:
        self.source = torch.Generator().manual_seed(3)

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(len(FEATURES), generator=self.source).tolist()


class Wraps(Sampler[int]):
    """Wraps another sampler."""

    def __init__(self, inner: Sampler[int]) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        yield from self.inner


SAMPLERS = {
    "torch's": lambda: RandomSampler(range(12)),
    "weighted": lambda: WeightedRandomSampler([1.0] * 12, 12),
    "subset": lambda: SubsetRandomSampler(range(12)),
    "seeded": lambda: RandomSampler(range(12), generator=torch.Generator().manual_seed(1)),
    "Python's generator": lambda: Shuffles(random.shuffle),
    "numpy's generator": lambda: Shuffles(np.random.shuffle),
    "its own of Python": lambda: OwnGenerator(random.Random(1)),
    "its own of numpy": lambda: OwnGenerator(np.random.default_rng(1)),
    "its own old one of numpy": lambda: OwnGenerator(np.random.RandomState(1)),
    "its own of torch": OwnTorchGenerator,
    "wrapped": lambda: Wraps(OwnTorchGenerator()),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_of_one_s_own(tmp_path: Path, name: str) -> None:
    def make() -> Any:
        return DataLoader(Numbered(noise=True), batch_size=4, sampler=SAMPLERS[name]())

    batches = assert_exact(tmp_path, make, 3, 4)
    epochs = [[row[0] for batch in batches[i : i + 3] for row in batch] for i in (0, 3, 6)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert [batches[i][0][1] for i in (0, 3, 6)] == [0, 1, 2]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_sampler_of_one_s_own(tmp_path: Path, accumulate: int) -> None:
    def make() -> Any:
        sampler = BatchSampler(Shuffles(random.shuffle), 4, drop_last=False)
        return DataLoader(Numbered(), batch_sampler=sampler)

    assert_exact(tmp_path, make, 2, 3, gradient_accumulation_steps=accumulate)


class Draws(Dataset[Any]):
    """Adds noise from a generator of its own."""

    def __init__(self, generator: Any) -> None:
        self.rng = generator

    def __len__(self) -> int:
        return len(FEATURES)

    def __getitem__(self, index: int) -> Any:
        drawn = float(self.rng.random())
        return torch.tensor([float(index), drawn, 0.0, 1.0]), LABELS[index]


@pytest.mark.parametrize("make", [lambda: random.Random(1), lambda: np.random.default_rng(1)])
@pytest.mark.parametrize(
    "wrap", [lambda dataset: dataset, lambda dataset: Subset(dataset, range(12))]
)
def test_a_dataset_that_draws_from_its_own_generator(tmp_path: Path, make: Any, wrap: Any) -> None:
    assert_exact(
        tmp_path, lambda: DataLoader(wrap(Draws(make())), batch_size=4, shuffle=True), 2, 4
    )


def test_such_a_dataset_with_the_trainer_s_own_loader(tmp_path: Path) -> None:
    def make(output_dir: Path) -> Trainer:
        args = arguments(output_dir, **EVERY_STEP)
        return Trainer(net(), args, None, Draws(random.Random(1)), compute_loss=Seen())

    whole = make(tmp_path)
    whole.train()
    for step in (2, 4):
        resumed = make(tmp_path / "resumed")
        resumed.train(tmp_path / f"checkpoint-{step}")
        for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
            assert torch.equal(one, other), step


class Yields:
    """A loader that is no DataLoader and has neither dataset nor sampler."""

    def __init__(self, has_length: bool = True) -> None:
        if has_length:
            self.length = 3

    def __iter__(self) -> Iterator[Any]:
        order = torch.randperm(12)
        for start in range(0, 12, 4):
            rows = order[start : start + 4]
            yield torch.cat([rows[:, None].float(), FEATURES[rows, 1:]], 1), LABELS[rows]


class Measured(Yields):
    """Knows its length."""

    def __len__(self) -> int:
        return 3


class Around:
    """Passes on the batches of a DataLoader, as loaders that prefetch do."""

    def __init__(self) -> None:
        self.loader = DataLoader(Numbered(), batch_size=4, shuffle=True)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        yield from self.loader


@pytest.mark.parametrize("make", [Measured, Around])
def test_a_loader_that_is_none_of_torch_s(tmp_path: Path, make: Any) -> None:
    batches = assert_exact(tmp_path, make, 1, 3, 5)
    assert len(batches) == 9
    assert batches[0] != batches[3]


def test_a_list_of_batches_is_a_loader(tmp_path: Path) -> None:
    assert_exact(tmp_path, lambda: list(Measured()), 2, num_train_epochs=1)


def test_a_loader_without_a_length_needs_max_steps(tmp_path: Path) -> None:
    assert_exact(tmp_path, Yields, 1, 3, 5, max_steps=7)
    with pytest.raises(ValueError, match="max_steps"):
        WithLoader(Yields, tmp_path).train()


def test_a_model_that_returns_its_loss_trains_on_a_loader_without_a_dataset(tmp_path: Path) -> None:
    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, features: Any, labels: Any) -> Any:
            return nn.functional.cross_entropy(self.layer(features), labels)

    class Own(Trainer):
        def get_train_dataloader(self) -> Any:
            return Measured()

    made = Own(Returns(), arguments(tmp_path))
    assert made.train().global_step == 6


class Workers(IterableDataset[Any]):
    """Yields in each worker its share, shuffled with the worker's generators."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        order = list(range(12))[worker.id :: worker.num_workers] if worker else list(range(12))
        random.shuffle(order)
        for index in order:
            yield torch.tensor([float(index), self.epoch, float(torch.rand(1)), 1.0]), LABELS[index]


@pytest.mark.parametrize("dataset", [Numbered, Workers])
@pytest.mark.parametrize("is_persistent", [True, False])
def test_workers_see_the_epoch_and_draw_the_same_after_a_resumption(
    tmp_path: Path, dataset: Any, is_persistent: bool
) -> None:
    def make() -> Any:
        made = dataset(noise=True) if dataset is Numbered else dataset()
        return DataLoader(
            made,
            batch_size=4,
            num_workers=2,
            persistent_workers=is_persistent,
            sampler=RandomSampler(made) if dataset is Numbered else None,
        )

    batches = assert_exact(tmp_path, make, 2, 4, max_steps=6)
    if dataset is Numbered:
        assert [batch[0][1] for batch in batches] == [0, 0, 0, 1, 1, 1]


def test_restarting_persistent_workers_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Any:
        return DataLoader(Numbered(), batch_size=12, num_workers=1, persistent_workers=True)

    WithLoader(make, tmp_path, save_strategy="no").train()
    assert sum("persistent" in record.getMessage() for record in caplog.records) == 1


class Stream(IterableDataset[Any]):
    """The samples without a length."""

    def __iter__(self) -> Iterator[Any]:
        yield from TensorDataset(FEATURES, LABELS)


def test_skipping_batches_by_reading_them_is_said_with_their_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Any:
        return DataLoader(Stream(), batch_size=2)

    WithLoader(make, tmp_path, max_steps=6).train()
    assert not caplog.records
    WithLoader(make, tmp_path, max_steps=6).train(tmp_path / "checkpoint-5")
    assert [5 in (record.args or ()) for record in caplog.records] == [True]


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("stops_at", [2, 6])
def test_workers_end_with_the_training(tmp_path: Path, persistent: bool, stops_at: int) -> None:
    workers: dict[str, Any] = {"num_workers": 1, "persistent_workers": persistent}
    WithLoader(lambda: DataLoader(Numbered(), 4, **workers), tmp_path, StopAt(stops_at)).train()
    args = arguments(tmp_path, **{f"dataloader_{name}": value for name, value in workers.items()})
    given: dict[str, Any] = {"train_dataset": Numbered(), "callbacks": [StopAt(stops_at)]}
    Trainer(net(), args, compute_loss=compute_loss, **given).train()
    assert multiprocessing.active_children() == []


def test_persistent_workers_of_evaluations_end_with_the_trainer(tmp_path: Path) -> None:
    options: dict[str, Any] = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    args = arguments(tmp_path, **options)
    evaluates = Trainer(net(), args, eval_dataset=Numbered(), compute_loss=compute_loss)
    evaluates.evaluate()
    [worker] = multiprocessing.active_children()
    del evaluates
    gc.collect()
    assert worker.exitcode == 0  # torch terminates a worker that was not told to end


def test_skipping_the_samples_of_the_trainer_s_own_loader_is_not_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Trainer:
        args = arguments(tmp_path, **EVERY_STEP)
        return Trainer(net(), args, train_dataset=data(), compute_loss=compute_loss)

    make().train()
    make().train(tmp_path / "checkpoint-3")
    assert not caplog.records


class Iterates(TrainerCallback):
    """Goes through the training data at the end of each epoch."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    def on_epoch_end(
        self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any
    ) -> None:
        self.samples.append(sum(len(batch[1]) for batch in train_dataloader))


def test_a_callback_that_goes_through_the_data_gets_all_of_it_after_a_resumption(
    tmp_path: Path,
) -> None:
    def make(*callbacks: Any) -> Trainer:
        args = arguments(tmp_path, **EVERY_STEP)
        return Trainer(
            net(), args, train_dataset=data(), compute_loss=compute_loss, callbacks=callbacks
        )

    make().train()
    iterates = Iterates()
    make(iterates).train(tmp_path / "checkpoint-3")
    assert iterates.samples == [20, 20]
