"""Data that has a state continues there: nothing is read twice, and the result is exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP
from small import arguments, compute_loss, net
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from callback_core import TrainerCallback
from trainer_torch import Trainer
from trainer_torch.checkpoints.resumed_position import find_position
from trainer_torch.data.data_loaders import train_dataloader
from trainer_torch.ranks.world import World


class Counts:
    """Counts the items that are read from now on, in all processes that are forked later."""

    def __init__(self) -> None:
        self.read = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __int__(self) -> int:
        return int(self.read)


def numbers(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


def sample(index: int) -> tuple[Tensor, int]:
    return torch.tensor([float(index), 0.1 * index, 1.0, 0.0]), index % 3


class WithState(IterableDataset[Any]):
    """Yields the numbers of a worker's share, from where it is; then starts over."""

    def __init__(self, samples: int = 30, has_length: bool = True) -> None:
        self.samples, self.has_length = samples, has_length
        self.counts, self.position = Counts(), 0

    def __len__(self) -> int:
        if not self.has_length:
            raise TypeError
        return self.samples

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, of = (worker.id, worker.num_workers) if worker else (0, 1)
        share = range(number, self.samples, of)
        while self.position < len(share):
            self.position += 1
            self.counts.read += 1
            yield sample(share[self.position - 1])
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class OwnIterator(WithState):
    """Is its own iterator, and starts over whenever it is opened."""

    def __iter__(self) -> Iterator[Any]:
        self.position = 0
        return self

    def __next__(self) -> Any:
        if self.position == self.samples:
            raise StopIteration
        self.position += 1
        self.counts.read += 1
        return sample(self.position - 1)


class IteratorWithState(IterableDataset[Any]):
    """Has no state, but its iterators do."""

    def __init__(self) -> None:
        self.inner = OwnIterator()
        self.counts = self.inner.counts

    def __len__(self) -> int:
        return 30

    def __iter__(self) -> Iterator[Any]:
        return iter(self.inner)


class Seen(Trainer):
    """Keeps the numbers of the samples of each training batch."""

    def __init__(self, output_dir: Path, dataset: Any, *callbacks: Any, **changed: Any) -> None:
        self.seen: list[list[int]] = []
        args = arguments(output_dir, **{**EVERY_STEP, **changed})
        given = {"train_dataset": dataset, "compute_loss": self.loss, "callbacks": callbacks}
        super().__init__(net(), args, **given)

    def loss(self, model: Any, batch: Any, **kwargs: Any) -> Any:
        self.seen.append([int(index) for index in batch[0][:, 0]])
        return compute_loss(model, [batch[0] / 30, batch[1]])

    @property
    def weights(self) -> list[Any]:
        return [value.tolist() for value in self.model.state_dict().values()]


def trained(output_dir: Path, dataset: Any, resume: Any = None, **changed: Any) -> Seen:
    made = Seen(output_dir, dataset, **changed)
    made.train(resume)
    return made


FIRST, SECOND = slice(8), slice(8, None)
"""The batches of each epoch."""


@pytest.mark.parametrize("kind", [WithState, OwnIterator, IteratorWithState])
@pytest.mark.parametrize("step", [3, 8])
def test_a_stream_with_a_state_is_not_read_again(
    tmp_path: Path, kind: Any, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trained(tmp_path / "whole", kind())
    dataset = kind()
    resumed = trained(tmp_path / "whole", dataset, tmp_path / "whole" / f"checkpoint-{step}")
    epochs = [[one for batch in whole.seen[part] for one in batch] for part in (FIRST, SECOND)]
    assert epochs == [list(range(30))] * 2
    assert resumed.seen == whole.seen[step:]
    assert int(dataset.counts) == sum(map(len, resumed.seen))
    assert resumed.weights == whole.weights
    assert not caplog.records


@pytest.mark.parametrize(("samples", "step"), [(30, 3), (30, 8), (25, 6)])
def test_so_is_the_share_of_each_worker(tmp_path: Path, samples: int, step: int) -> None:
    changed = {"dataloader_num_workers": 2, "num_train_epochs": 1}
    whole = trained(tmp_path / "whole", WithState(samples), **changed)
    assert sorted(numbers(whole.seen)) == list(range(samples))
    dataset = WithState(samples)
    checkpoint = tmp_path / "whole" / f"checkpoint-{step}"
    resumed = trained(tmp_path, dataset, checkpoint, **changed)
    assert resumed.seen == whole.seen[step:]
    assert int(dataset.counts) == sum(map(len, resumed.seen))
    assert resumed.weights == whole.weights


def test_persistent_workers_go_on_with_the_next_epoch(tmp_path: Path) -> None:
    changed = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    whole = trained(tmp_path / "whole", WithState(), **changed)
    resumed = trained(tmp_path, WithState(), tmp_path / "whole" / "checkpoint-5", **changed)
    assert resumed.seen == whole.seen[5:]
    assert sorted(numbers(resumed.seen[-8:])) == list(range(30))


@pytest.mark.parametrize("workers", [0, 2])
def test_two_resumptions_within_an_epoch_read_each_sample_once(
    tmp_path: Path, workers: int
) -> None:
    changed = {"dataloader_num_workers": workers, "num_train_epochs": 1}
    whole = trained(tmp_path, WithState(), **changed)
    trained(tmp_path / "a", WithState(), tmp_path / "checkpoint-2", **changed)
    last = trained(tmp_path / "b", WithState(), tmp_path / "a" / "checkpoint-5", **changed)
    assert last.seen == whole.seen[5:]
    assert last.weights == whole.weights


@pytest.mark.parametrize("batch_size", [3, 8])
@pytest.mark.parametrize("has_state", [True, False])
def test_another_batch_size_trains_each_sample_of_a_stream_once(
    tmp_path: Path, batch_size: int, has_state: bool
) -> None:
    kind = WithState if has_state else WithoutState
    first = trained(tmp_path / "whole", kind(), num_train_epochs=1)
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    changed = {"per_device_train_batch_size": batch_size, "num_train_epochs": 1}
    second = trained(tmp_path / "second", kind(), checkpoint, **changed)
    assert numbers(first.seen[:3] + second.seen) == list(range(30))
    checkpoint = sorted((tmp_path / "second").glob("checkpoint-4"))[0]
    third = trained(tmp_path, kind(), checkpoint, num_train_epochs=1)
    assert numbers(first.seen[:3] + second.seen[:1] + third.seen) == list(range(30))


class WithoutState(IterableDataset[Any]):
    """Has to be read from its beginning."""

    def __len__(self) -> int:
        return 30

    def __iter__(self) -> Iterator[Any]:
        return map(sample, range(30))


def test_a_state_of_other_workers_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = trained(tmp_path / "whole", WithState(), num_train_epochs=1)
    checkpoint = tmp_path / "whole" / "checkpoint-3"
    changed = {"dataloader_num_workers": 1, "num_train_epochs": 1}
    resumed = trained(tmp_path, WithState(), checkpoint, **changed)
    assert resumed.seen == whole.seen[3:]
    assert any(3 in (record.args or ()) for record in caplog.records)


def test_other_workers_of_a_stream_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained(tmp_path, WithState(), num_train_epochs=1)
    made = Seen(tmp_path, WithState(), num_train_epochs=1, dataloader_num_workers=2)
    made.run.train_dataloader = made.get_train_dataloader()
    find_position(made.run, tmp_path / "checkpoint-3")
    assert [record.args for record in caplog.records] == [(0, 2)]


def test_a_state_that_cannot_be_saved_is_said_once_and_the_data_is_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Strange(WithState):
        def state_dict(self) -> dict[str, Any]:
            return {"position": Counts()}

    whole = trained(tmp_path / "whole", Strange())
    assert sum("Counts" in record.getMessage() for record in caplog.records) == 1
    resumed = trained(tmp_path, Strange(), tmp_path / "whole" / "checkpoint-3")
    assert resumed.seen == whole.seen[3:]


class StopsInStep(TrainerCallback):
    """Stops the training between two batches of a step, and saves."""

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            control.should_training_stop = control.should_save = True


def test_a_stop_between_two_batches_of_a_step_loses_no_batch(tmp_path: Path) -> None:
    changed = {"gradient_accumulation_steps": 3, "num_train_epochs": 1, "save_strategy": "no"}
    stopped = Seen(tmp_path, WithState(), StopsInStep(), **changed)
    stopped.train()
    resumed = trained(tmp_path / "resumed", WithState(), tmp_path / "checkpoint-1", **changed)
    assert numbers(stopped.seen + resumed.seen) == list(range(30))


@pytest.mark.parametrize("kind", [WithState, WithoutState])
def test_a_stream_without_a_length_ends_exactly(tmp_path: Path, kind: Any) -> None:
    class Endless(kind):  # type: ignore[misc]
        __len__ = None

    whole = trained(tmp_path / "whole", Endless(), max_steps=13)
    for step in (7, 8, 9):
        checkpoint = tmp_path / "whole" / f"checkpoint-{step}"
        resumed = trained(tmp_path / f"{step}", Endless(), checkpoint, max_steps=13)
        assert resumed.seen == whole.seen[step:]
        assert resumed.weights == whole.weights


@pytest.mark.parametrize("step", [3, 5, 7, 8])
def test_ignoring_what_is_done_begins_the_epoch_at_its_start(tmp_path: Path, step: int) -> None:
    whole = trained(tmp_path / "whole", list(map(sample, range(20))), num_train_epochs=2)
    checkpoint = tmp_path / "whole" / f"checkpoint-{step}"
    dataset = list(map(sample, range(20)))
    resumed = trained(tmp_path, dataset, checkpoint, num_train_epochs=2, ignore_data_skip=True)
    begin = step // 5 * 5
    expected = (whole.seen[begin : begin + 5] + whole.seen[5:])[: 10 - step]
    assert resumed.seen == expected
    assert resumed.state.global_step == resumed.state.max_steps == 10


@pytest.mark.parametrize("kind", [WithState, WithoutState])
@pytest.mark.parametrize("call", [0, 3])
def test_smaller_batches_take_each_sample_of_a_stream_once(
    tmp_path: Path, kind: Any, call: int
) -> None:
    class RunsOut(Seen):
        calls = 0

        def loss(self, model: Any, batch: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == call + 1:
                raise torch.OutOfMemoryError
            return super().loss(model, batch)

    made = RunsOut(tmp_path, kind(), auto_find_batch_size=True, num_train_epochs=1)
    made.train()
    assert numbers(made.seen) == list(range(30))
    assert len(made.seen[-2]) == 2


class Of(World):
    """One of several processes, as far as the data is concerned."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@pytest.mark.parametrize("workers", [0, 2])
def test_each_rank_continues_with_its_turns(tmp_path: Path, workers: int) -> None:
    args = arguments(tmp_path, dataloader_num_workers=workers)
    for rank in range(2):
        whole = [batch[0] for batch in train_dataloader(WithState(), None, args, Of(rank, 2))]
        loader = train_dataloader(WithState(), None, args, Of(rank, 2))
        batches = iter(loader)
        taken = [next(batches)[0] for _ in range(2)]
        state = loader.progress.state_dict()
        dataset = WithState()
        rest = train_dataloader(dataset, None, args, Of(rank, 2)).read_stream(state=state)
        both = torch.cat([*taken, *(batch[0] for batch in rest)])
        assert torch.equal(both, torch.cat(whole))
        assert int(dataset.counts) == 30 - 16
