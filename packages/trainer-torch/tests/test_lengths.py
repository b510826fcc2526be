"""Data that yields another number of batches than its length: the training ends in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from resuming import StopAt
from small import compute_loss, data, logged, trainer
from torch.utils.data import DataLoader, IterableDataset, Sampler

from callback_core import TrainerCallback
from trainer_torch import Trainer
from trainer_torch.run.plan import DataLength, Plan
from trainer_torch.storage.checkpoint import list_checkpoints


class Promises(IterableDataset[Any]):
    """Yields another number of samples than its length."""

    def __init__(self, promised: int, yielded: int) -> None:
        self.promised, self.samples = promised, data(yielded)

    def __len__(self) -> int:
        return self.promised

    def __iter__(self) -> Iterator[Any]:
        yield from self.samples


def promising(
    output_dir: Path, promised: int, yielded: int, *callbacks: Any, **changed: Any
) -> Trainer:
    """Return a trainer whose data has so many batches by its length and in fact."""
    given = {"train_dataset": Promises(4 * promised, 4 * yielded)}
    return trainer(output_dir, *callbacks, given=given, **changed)


def warnings_of_length(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """Return the numbers in the warnings: batches, epoch, length."""
    return [
        record.args[:3]  # type: ignore[index]
        for record in caplog.records
        if record.name == "trainer_torch.run.plan"
    ]


def steps_with(trained: Trainer, name: str) -> list[int]:
    return [entry["step"] for entry in trained.state.log_history if name in entry]


def test_max_steps_are_reached(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    usual = {"eval_strategy": "steps", "eval_steps": 5, "save_strategy": "steps", "save_steps": 7}
    trained = promising(tmp_path, 6, 4, max_steps=18, **usual)
    assert trained.train().global_step == 18
    assert warnings_of_length(caplog) == [(4, 0, 6)]
    assert steps_with(trained, "eval_loss") == [5, 10, 15, 18]
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        *("checkpoint-7", "checkpoint-14", "checkpoint-18")
    ]
    assert logged(trained, "learning_rate")[-1] == pytest.approx(0.05 / 18)


@pytest.mark.parametrize("step", [4, 12, 13, 16, 17])
def test_a_resumed_training_reaches_max_steps_too(tmp_path: Path, step: int) -> None:
    usual = {"max_steps": 18, "save_strategy": "steps", "save_steps": 1}
    whole = promising(tmp_path / "whole", 6, 4, **usual)
    whole.train()
    promising(tmp_path, 6, 4, StopAt(step), **usual).train()
    resumed = promising(tmp_path, 6, 4, **usual)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 18
    assert logged(resumed, "loss") == logged(whole, "loss")


def test_the_epochs_that_were_asked_for_are_done_and_the_end_is_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = {"eval_strategy": "steps", "eval_steps": 5, "save_strategy": "steps", "save_steps": 7}
    trained = promising(tmp_path, 6, 4, num_train_epochs=3, **usual)
    assert trained.train().global_step == 12
    assert warnings_of_length(caplog) == [(4, 0, 6)]
    assert steps_with(trained, "eval_loss") == [5, 10, 12]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-7", "checkpoint-12"]
    [request] = [one for one in trained.control.requests if one.flag == "should_training_stop"]
    assert request.reason
    resumed = promising(tmp_path, 6, 4, num_train_epochs=3, **usual)
    assert resumed.train(resume_from_checkpoint=True).global_step == 12


def test_what_was_done_at_the_last_step_is_not_done_again(tmp_path: Path) -> None:
    usual = {"eval_strategy": "steps", "eval_steps": 4, "save_strategy": "steps", "save_steps": 4}
    trained = promising(tmp_path, 6, 4, num_train_epochs=2, **usual)
    trained.train()
    assert steps_with(trained, "eval_loss") == [4, 8]


def test_without_the_strategy_steps_nothing_is_added_at_the_end(tmp_path: Path) -> None:
    trained = promising(tmp_path, 6, 4, num_train_epochs=2)
    trained.train()
    assert steps_with(trained, "eval_loss") == []
    assert list_checkpoints(tmp_path) == []


def test_data_that_ends_before_max_steps_is_evaluated_and_saved_at_its_end(tmp_path: Path) -> None:
    class Once(IterableDataset[Any]):
        def __init__(self) -> None:
            self.samples = iter(data())

        def __iter__(self) -> Iterator[Any]:
            return self.samples

    usual = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    trained = trainer(tmp_path, given={"train_dataset": Once()}, max_steps=12, **usual)
    assert trained.train().global_step == 5
    assert steps_with(trained, "eval_loss") == [3, 5]
    assert list_checkpoints(tmp_path)[-1].name == "checkpoint-5"


def test_more_batches_than_the_length_are_named_if_training_ends_within_an_epoch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert promising(tmp_path, 1, 4, num_train_epochs=2).train().global_step == 2
    assert warnings_of_length(caplog) == [(2, 0, 1)]


def test_more_batches_than_the_length_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert promising(tmp_path, 2, 4, num_train_epochs=4).train().global_step == 8
    assert warnings_of_length(caplog) == [(4, 0, 2)]


class Wild(Sampler[list[int]]):
    """Batches of a batch sampler, fewer than its length."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([0, 1], [2, 3, 4], [5])

    def __len__(self) -> int:
        return 5


def test_a_batch_sampler_that_yields_less_reaches_max_steps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class OwnLoader(Trainer):
        def get_train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(data(), batch_sampler=Wild())

    plain = trainer(tmp_path, max_steps=10, gradient_accumulation_steps=2)
    trained = OwnLoader(plain.model, plain.args, compute_loss=compute_loss)
    assert trained.train().global_step == 10
    assert warnings_of_length(caplog) == [(3, 0, 5)]


def test_the_right_length_and_a_callback_that_leaves_epochs_are_not_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Leaves(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_epoch_stop = state.global_step == 2

    assert trainer(tmp_path, Leaves, eval_strategy="epoch").train().global_step == 7
    assert trainer(tmp_path, max_steps=7).train().global_step == 7
    assert warnings_of_length(caplog) == []


@pytest.mark.parametrize(("is_main", "told"), [(True, [(4, 0, 6), (2,)]), (False, [])])
def test_only_the_main_process_tells_and_data_that_has_ended_is_told_too(
    is_main: bool, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    length = DataLength(Plan(max_steps=18, num_train_epochs=3, batches_per_epoch=6), is_main)
    for epoch, batches in enumerate((4, 4, 0)):
        length.check(epoch, batches, by_steps=True)
    assert length.is_short
    assert warnings_of_length(caplog) == told
