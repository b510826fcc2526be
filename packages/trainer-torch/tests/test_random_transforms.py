"""What datasets and collators draw depends on nothing but the place of the batch."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import arguments, compute_loss, net
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

from trainer_torch import Trainer

SAVES = {"save_strategy": "steps", "save_steps": 1}


class Crop:
    """A transform with generators of its own."""

    def __init__(self) -> None:
        self.python, self.numpy = random.Random(1), np.random.default_rng(2)

    def __call__(self, value: float) -> float:
        return value + self.python.random() + self.numpy.random()


class Noisy(Dataset[Any]):
    """Draws from every generator there is. Tells the process that has read a sample."""

    def __init__(self) -> None:
        self.transform, self.epoch = Crop(), -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 18

    def __getitem__(self, index: int) -> Any:
        drawn = self.transform(random.random() + np.random.randn() + float(torch.rand(1)))
        return torch.tensor([index, drawn, self.epoch, os.getpid()], dtype=torch.float64), index % 3


class NoisyStream(IterableDataset[Any]):
    """The same samples, one after the other."""

    def __iter__(self) -> Any:
        return map(Noisy().__getitem__, range(18))


def noisy_collate(samples: list[Any]) -> Any:
    features, labels = default_collate(samples)
    features[:, 1] += random.random() + np.random.rand() + float(torch.rand(1))
    return features, labels


class Seen(Trainer):
    """Keeps the features of the training batches. The model does not see the process."""

    def __init__(self, output_dir: Path, dataset: Any, **changed: Any) -> None:
        self.seen: list[Tensor] = []
        args = arguments(output_dir, **{**SAVES, "per_device_train_batch_size": 4, **changed})
        given = {"train_dataset": dataset, "eval_dataset": Noisy(), "compute_loss": self.loss}
        super().__init__(net(), args, noisy_collate, **given)

    def loss(self, model: Any, batch: Any, **kwargs: Any) -> Any:
        features, labels = batch
        if model.training:
            self.seen.append(features)
        features = features.float() * torch.tensor([0.1, 1.0, 0.1, 0.0])
        return compute_loss(model, [features + random.random() + np.random.rand(), labels])

    @property
    def drawn(self) -> list[Any]:
        return [batch[:, :3].tolist() for batch in self.seen]

    @property
    def processes(self) -> set[int]:
        return {int(pid) for batch in self.seen for pid in batch[:, 3]}

    @property
    def weights(self) -> list[Any]:
        return [value.tolist() for value in self.model.state_dict().values()]


def trained(output_dir: Path, dataset: Any = None, resume: Any = None, **changed: Any) -> Seen:
    made = Seen(output_dir, dataset or Noisy(), **changed)
    made.train(resume)
    return made


@pytest.mark.parametrize("changed", [{}, {"gradient_accumulation_steps": 2}])
def test_numbers_and_weights_do_not_depend_on_workers(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    changed = {"eval_strategy": "epoch", **changed}
    none = trained(tmp_path / "0", **changed)
    two = trained(tmp_path / "2", dataloader_num_workers=2, **changed)
    assert two.drawn == none.drawn
    assert two.weights == none.weights
    assert none.drawn[0] != none.drawn[5]


@pytest.mark.parametrize(("workers", "step"), [(0, 3), (1, 5), (2, 7)])
def test_a_resumption_with_another_number_of_workers_is_exact(
    tmp_path: Path, workers: int, step: int
) -> None:
    whole = trained(tmp_path / "whole", dataloader_num_workers=2)
    checkpoint = tmp_path / "whole" / f"checkpoint-{step}"
    resumed = trained(tmp_path, resume=checkpoint, dataloader_num_workers=workers)
    assert resumed.drawn == whole.drawn[step:]
    assert resumed.weights == whole.weights


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stream_draws_the_same_in_a_worker_and_after_a_resumption(
    tmp_path: Path, workers: int
) -> None:
    whole = trained(tmp_path / "whole", NoisyStream(), max_steps=8)
    checkpoint = tmp_path / "whole" / "checkpoint-7"
    changed = {"max_steps": 8, "dataloader_num_workers": workers}
    resumed = trained(tmp_path, NoisyStream(), checkpoint, **changed)
    assert resumed.drawn[-1] == whole.drawn[-1]
    assert resumed.weights == whole.weights


def test_persistent_workers_start_once_and_resume_exactly(tmp_path: Path) -> None:
    changed = {"dataloader_num_workers": 2, "num_train_epochs": 3}
    whole = trained(tmp_path / "whole", dataloader_persistent_workers=True, **changed)
    assert len(whole.processes) == 2
    assert [int(batch[0, 2]) for batch in whole.seen[::5]] == [0, 1, 2]
    checkpoint = tmp_path / "whole" / "checkpoint-7"
    resumed = trained(tmp_path, resume=checkpoint, dataloader_persistent_workers=True, **changed)
    assert resumed.drawn == whole.drawn[7:]
    assert resumed.weights == whole.weights


def test_workers_without_persistence_see_the_same(tmp_path: Path) -> None:
    changed = {"dataloader_num_workers": 2, "num_train_epochs": 3, "save_strategy": "no"}
    kept = trained(tmp_path, dataloader_persistent_workers=True, **changed)
    assert trained(tmp_path, **changed).drawn == kept.drawn


def test_persistent_workers_of_evaluations_start_once(tmp_path: Path) -> None:
    made = Seen(tmp_path, Noisy(), dataloader_num_workers=1, dataloader_persistent_workers=True)
    first, second = (made.get_eval_dataloader(made.eval_dataset) for _ in range(2))
    pids = [{int(pid) for batch, _ in loader for pid in batch[:, 3]} for loader in (first, second)]
    assert first is second
    assert pids[0] == pids[1] != {os.getpid()}
    assert made.get_eval_dataloader(Noisy()) is not first
    made.args.per_device_eval_batch_size = 2
    assert made.get_eval_dataloader(made.eval_dataset).batch_size == 2


def test_evaluations_draw_the_same_each_time(tmp_path: Path) -> None:
    made = Seen(tmp_path, Noisy())
    torch.manual_seed(3)
    assert made.evaluate()["eval_loss"] != made.evaluate()["eval_loss"]  # its loss draws
    loader = made.get_eval_dataloader(made.eval_dataset)
    assert [b[0].tolist() for b in loader] == [b[0].tolist() for b in loader]


class NamesItsWorker(Dataset[Any]):
    """Its samples say whether the worker knows this dataset."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        worker = get_worker_info()
        return torch.tensor([worker is not None and worker.dataset is self, 0.0, 0.0, 0.0]), 0


def test_workers_may_be_started_in_another_way(tmp_path: Path) -> None:
    made = Seen(
        tmp_path,
        NamesItsWorker(),
        dataloader_num_workers=1,
        dataloader_prefetch_factor=4,
        dataloader_multiprocessing_context="spawn",
    )
    loader = made.get_train_dataloader()
    assert all(batch[:, 0].all() for batch, _ in loader)
    assert (loader.prefetch_factor, loader.in_order) == (4, True)


def test_a_callback_may_read_the_data_while_persistent_workers_load_it(tmp_path: Path) -> None:
    made = Seen(tmp_path, Noisy(), dataloader_num_workers=1, dataloader_persistent_workers=True)
    loader = made.get_train_dataloader()
    batches = iter(loader)
    first = next(batches)
    assert len(list(loader)) == 5
    assert len(list(batches)) == 4
    assert next(iter(loader))[0][:, :3].tolist() == first[0][:, :3].tolist()
