"""When memory runs out, batches become smaller, and the samples of an update step stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import Net, arguments, compute_loss, data, logged, net, trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from callback_core import TrainerCallback
from trainer_torch import Trainer

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Normed(Net):
    """A network with running statistics, which a step that is done again must not count twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(self.norm(features))


def normed() -> Normed:
    torch.manual_seed(1)
    return Normed()


class Limited:
    """A loss that needs more memory than there is for batches over `limit`, from a batch on."""

    def __init__(self, limit: int, first: int = 1, error: Exception = FULL) -> None:
        self.limit, self.first, self.error = limit, first, error
        self.sizes: list[int] = []

    def __call__(self, model: nn.Module, batch: list[Tensor]) -> Any:
        loss, scores = compute_loss(model, batch)  # draws for dropout, and counts for the norm
        if model.training:
            self.sizes.append(len(batch[0]))
            if len(batch[0]) > self.limit and len(self.sizes) >= self.first:
                raise self.error
        return loss, scores


def made(directory: Path, loss: Any, *callbacks: Any, **changed: Any) -> Trainer:
    given = {"model": normed(), "compute_loss": loss, **changed.pop("given", {})}
    options = {"auto_find_batch_size": True, **changed}
    return trainer(directory, *callbacks, given=given, **options)


def state(trained: Trainer) -> list[Tensor]:
    return list(trained.model.state_dict().values())


def same(first: Trainer, second: Trainer) -> bool:
    return all(torch.equal(*pair) for pair in zip(state(first), state(second), strict=True))


def test_without_the_argument_the_error_is_raised(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        made(tmp_path, Limited(2), auto_find_batch_size=False).train()


@pytest.mark.parametrize(("limit", "model"), [(1, net), (2, normed), (3, normed)])
def test_training_is_as_with_the_smaller_batches_from_the_start(
    tmp_path: Path, limit: int, model: Any
) -> None:
    found = made(tmp_path, Limited(limit), given={"model": model()})
    found.train()
    size = min(limit, 2)
    smaller = made(
        tmp_path,
        compute_loss,
        given={"model": model()},
        per_device_train_batch_size=size,
        gradient_accumulation_steps=4 // size,
    )
    smaller.train()
    assert same(found, smaller)
    assert found.state.global_step == smaller.state.global_step == 10
    assert logged(found, "loss") == logged(smaller, "loss")
    assert logged(found, "epoch") == logged(smaller, "epoch")


class Augmented(torch.utils.data.Dataset[Any]):
    """Draws from torch's generator as it loads a sample."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        features, label = data()[index]
        return features + torch.rand(4), label


@pytest.mark.parametrize("dataset", [data(), Augmented()], ids=["plain", "augmented"])
def test_in_the_middle_it_goes_on_as_a_training_that_resumes_with_smaller_batches(
    tmp_path: Path, dataset: Any
) -> None:
    given = {"train_dataset": dataset}
    found = made(tmp_path / "found", Limited(2, first=8), given=given)
    found.train()
    options = {"given": given, "save_strategy": "steps", "save_steps": 7}
    made(tmp_path / "resumed", compute_loss, **options, max_steps=10).train()
    options |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    resumed = made(tmp_path / "resumed", compute_loss, **options, max_steps=10)
    resumed.train(resume_from_checkpoint=tmp_path / "resumed" / "checkpoint-7")
    assert same(found, resumed)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(data())


def test_data_without_an_index_goes_on_at_the_same_sample(tmp_path: Path) -> None:
    loss = Limited(2, first=4)
    found = made(tmp_path, loss, given={"train_dataset": Stream()}, max_steps=8)
    found.train()
    assert loss.sizes == [4, 4, 4, 4, *[2] * 10]
    assert found.state.global_step == 8


class Counts(TrainerCallback):
    def __init__(self) -> None:
        self.events: list[str] = []

    def on_train_begin(self, *given: Any, **parts: Any) -> None:
        self.events.append("train")

    def on_step_begin(self, *given: Any, **parts: Any) -> None:
        self.events.append("step")

    def on_substep_end(self, *given: Any, **parts: Any) -> None:
        self.events.append("substep")


def test_the_training_and_its_steps_begin_once(tmp_path: Path) -> None:
    counts = Counts()
    made(tmp_path, Limited(2), counts, max_steps=2).train()
    assert counts.events == ["train", "step", "substep", "step", "substep"]


def test_the_new_sizes_are_told_once_and_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = arguments(tmp_path, auto_find_batch_size=True)
    found = Trainer(normed(), args, train_dataset=data(), compute_loss=Limited(2))
    found.train()
    sizes = found.args.per_device_train_batch_size, found.args.gradient_accumulation_steps
    assert (*sizes, found.state.train_batch_size) == (2, 2, 2)
    assert args.per_device_train_batch_size == 4
    assert len([one for one in caplog.records if "emory" in one.getMessage()]) == 1


class Stops(TrainerCallback):
    """Ends the training after a step, as a kill would."""

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.global_step == 4:
            raise KeyboardInterrupt


def test_a_killed_training_resumes_to_the_bit_with_the_size_that_it_has_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"save_strategy": "steps", "save_steps": 1}
    whole = made(tmp_path / "whole", Limited(2, first=2), **options)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "killed", Limited(2, first=2), Stops(), **options).train()
    caplog.clear()
    loss = Limited(2)
    resumed = made(tmp_path / "killed", loss, **options)
    resumed.train(resume_from_checkpoint=True)
    assert same(whole, resumed)
    assert set(loss.sizes) == {2}
    assert not [one for one in caplog.records if one.levelname == "WARNING"]


def test_a_batch_of_one_sample_cannot_become_smaller(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError) as raised:
        made(tmp_path, Limited(0), given={"model": net()}).train()
    assert "auto_find_batch_size" in "".join(raised.value.__notes__)


def test_other_errors_are_raised(tmp_path: Path) -> None:
    loss = Limited(2, error=RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        made(tmp_path, loss).train()
    assert loss.sizes == [4]


class OwnLoader(Trainer):
    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_size=4)


def test_a_loader_with_a_size_of_its_own_is_named(tmp_path: Path) -> None:
    found = OwnLoader(
        normed(),
        arguments(tmp_path, auto_find_batch_size=True),
        train_dataset=data(),
        compute_loss=Limited(2),
    )
    with pytest.raises(RuntimeError, match="per_device_train_batch_size"):
        found.train()


def test_memory_is_given_back_every_so_many_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    found = made(tmp_path, compute_loss, torch_empty_cache_steps=3, max_steps=7)
    monkeypatch.setattr(
        "trainer_torch.loop.update_step.empty_cache",
        lambda device: steps.append(found.state.global_step),
    )
    found.train()
    assert steps == [3, 6]
