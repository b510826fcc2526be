"""A resumed training whose arguments differ from those of its checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP, StopAt
from small import arguments, compute_loss, data, logged, net, trainer, warned
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from callback_core import TrainerState
from trainer_torch import Trainer, TrainingArguments


class Stream(IterableDataset[Any]):
    """The numbered samples, in order, without a length."""

    def __iter__(self) -> Any:
        yield from numbered()


class Ordered(Trainer):
    """Has a loader of its own, shuffled by a sampler of torch."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        size = self.args.per_device_train_batch_size
        return DataLoader(numbered(), batch_size=size, sampler=RandomSampler(numbered()))


def numbered(samples: int = 48) -> TensorDataset:
    """Return samples whose first feature is their number."""
    features = torch.randn(samples, 4, generator=torch.Generator().manual_seed(3))
    features[:, 0] = torch.arange(samples)
    return TensorDataset(features, torch.zeros(samples, dtype=torch.long))


def seen(
    output_dir: Path, *callbacks: Any, resume: bool = False, given: Any = None, **changed: Any
) -> tuple[list[int], Trainer]:
    """Train, and return the numbers of the samples in the order in which they came."""
    numbers: list[int] = []

    def loss_of(model: nn.Module, batch: Any) -> Any:
        numbers.extend(batch[0][:, 0].int().tolist())
        return compute_loss(model, batch)

    usual = {"train_dataset": numbered(), "compute_loss": loss_of, **(given or {})}
    changed = {"num_train_epochs": 1, "learning_rate": 1e-4, **EVERY_STEP, **changed}
    trained = trainer(output_dir, *callbacks, given=usual, **changed)
    trained.train(resume)
    return numbers, trained


@pytest.mark.parametrize("size", [2, 4, 5, 8, 16, 48, 100])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_rest_of_an_epoch_is_trained_once_whatever_the_new_size_of_a_step(
    tmp_path: Path, size: int, accumulate: int
) -> None:
    before, _ = seen(tmp_path, StopAt(4), per_device_train_batch_size=8)
    after, resumed = seen(
        tmp_path,
        resume=True,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulate,
    )
    assert len(before) == 32
    assert sorted([*before, *after]) == list(range(48))
    steps = math.ceil(math.ceil(16 / size) / accumulate)
    assert resumed.state.max_steps == resumed.state.global_step == 4 + steps
    assert resumed.state.epoch == 1


def test_the_order_is_that_of_the_undisturbed_epoch(tmp_path: Path) -> None:
    whole, _ = seen(tmp_path / "whole", per_device_train_batch_size=8)
    before, _ = seen(tmp_path, StopAt(2), per_device_train_batch_size=8)
    after, _ = seen(tmp_path, resume=True, per_device_train_batch_size=3)
    assert [*before, *after] == whole


def test_a_training_that_is_resumed_twice_continues_at_the_right_sample(tmp_path: Path) -> None:
    first, _ = seen(tmp_path, StopAt(1), per_device_train_batch_size=8)
    second, _ = seen(tmp_path, StopAt(3), resume=True, per_device_train_batch_size=5)
    third, last = seen(tmp_path, resume=True, per_device_train_batch_size=7)
    assert [len(first), len(second)] == [8, 10]
    assert sorted([*first, *second, *third]) == list(range(48))
    assert last.state.global_step == last.state.max_steps == 3 + 5


@pytest.mark.parametrize("changed", [{}, {"max_steps": 15}])
def test_a_training_that_is_resumed_again_keeps_the_length_that_new_arguments_gave_it(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    changed = {"num_train_epochs": 2, **changed}
    seen(tmp_path, StopAt(4), per_device_train_batch_size=8, **changed)
    small = {"per_device_train_batch_size": 4, **changed}
    _, once = seen(tmp_path, StopAt(6), resume=True, **small)
    _, twice = seen(tmp_path, resume=True, **small)
    assert once.state.max_steps == twice.state.max_steps == twice.state.global_step
    assert twice.state.global_step == changed.get("max_steps", 4 + 4 + 12)


@pytest.mark.parametrize("samples", [24, 64])
@pytest.mark.parametrize("step", [2, 6])
def test_data_of_another_length_is_named_and_the_number_of_epochs_is_kept(
    tmp_path: Path, samples: int, step: int, caplog: pytest.LogCaptureFixture
) -> None:
    usual = {"per_device_train_batch_size": 8, "num_train_epochs": 3}
    seen(tmp_path, StopAt(step), **usual)
    after, resumed = seen(
        tmp_path, resume=True, given={"train_dataset": numbered(samples)}, **usual
    )
    batches = samples // 8
    left = max(0, batches - step) + 2 * batches
    assert resumed.state.max_steps == resumed.state.global_step == step + left
    assert resumed.state.epoch == 3
    assert len(after) == 8 * left
    assert f"{batches} batches" in caplog.text


def test_later_epochs_are_whole_and_the_number_of_epochs_is_kept(tmp_path: Path) -> None:
    usual = {"num_train_epochs": 3}
    before, _ = seen(tmp_path, StopAt(8), per_device_train_batch_size=8, **usual)
    after, resumed = seen(tmp_path, resume=True, per_device_train_batch_size=16, **usual)
    assert sorted([*before, *after]) == sorted([*range(48)] * 3)
    assert resumed.state.epoch == 3


def test_max_steps_are_reached_with_larger_and_with_smaller_batches(tmp_path: Path) -> None:
    for name, size in (("smaller", 4), ("larger", 24)):
        seen(tmp_path / name, StopAt(8), per_device_train_batch_size=8, max_steps=15)
        _, resumed = seen(
            tmp_path / name, resume=True, per_device_train_batch_size=size, max_steps=15
        )
        assert resumed.state.global_step == 15


def test_data_without_a_length_continues_at_the_sample_too(tmp_path: Path) -> None:
    given = {"train_dataset": Stream()}
    seen(tmp_path, StopAt(2), given=given, max_steps=4, per_device_train_batch_size=8)
    after, _ = seen(
        tmp_path, StopAt(3), resume=True, given=given, max_steps=4, per_device_train_batch_size=4
    )
    assert after == list(range(16, 20))
    last, _ = seen(tmp_path, resume=True, given=given, max_steps=5, per_device_train_batch_size=4)
    assert last == list(range(20, 28))


def ordered(output_dir: Path, numbers: list[int], *callbacks: Any, **changed: Any) -> Trainer:
    def loss_of(model: nn.Module, batch: Any) -> Any:
        numbers.extend(batch[0][:, 0].int().tolist())
        return compute_loss(model, batch)

    changed = {"num_train_epochs": 1, **EVERY_STEP, **changed}
    return Ordered(
        net(), arguments(output_dir, **changed), compute_loss=loss_of, callbacks=callbacks
    )


def test_a_loader_of_one_s_own_continues_at_the_sample_too(tmp_path: Path) -> None:
    numbers: list[int] = []
    ordered(tmp_path, numbers, StopAt(4), per_device_train_batch_size=8).train()
    ordered(tmp_path, numbers, per_device_train_batch_size=4).train(True)
    assert sorted(numbers) == list(range(48))


def test_samples_that_a_loader_of_one_s_own_must_repeat_are_counted_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    numbers: list[int] = []
    ordered(tmp_path, numbers, StopAt(3), per_device_train_batch_size=8).train()
    ordered(tmp_path, numbers, per_device_train_batch_size=16).train(True)
    assert len(numbers) == 48 + 8
    assert any(8 in (record.args or ()) for record in caplog.records)


def test_new_arguments_win_over_the_checkpoint_s_and_one_warning_names_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, max_steps=4, **EVERY_STEP).train()
    resumed = trainer(tmp_path, max_steps=8, logging_steps=2, max_grad_norm=0.5, **EVERY_STEP)
    resumed.train(resume_from_checkpoint=True)
    assert [entry["step"] for entry in resumed.state.log_history if "loss" in entry] == [
        *[1, 2, 3, 4],
        *[6, 8],
    ]
    [warning] = warned(caplog)
    for named in ("max_steps 8 ", "logging_steps 2 ", "max_grad_norm 0.5 "):
        assert warning.count(named) == 1
    assert "save_steps" not in warning


def test_a_learning_rate_that_the_optimizer_s_state_overrides_is_named_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, StopAt(2), learning_rate=0.05, **EVERY_STEP).train()
    resumed = trainer(tmp_path, learning_rate=1.0, weight_decay=0.1, seed=3, **EVERY_STEP)
    resumed.train(resume_from_checkpoint=True)
    assert logged(resumed, "learning_rate")[2] == pytest.approx(0.04)
    new, held = warned(caplog)
    assert "seed 3 " in new
    assert "learning_rate 1.0 " in held
    assert "0.05" in held
    assert "weight_decay 0.1 " in held
    assert "learning_rate" not in new


def with_optimizer(output_dir: Path, lr: float, step_size: int, *callbacks: Any) -> Trainer:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size)
    given = {"model": model, "optimizers": (optimizer, schedule)}
    return trainer(output_dir, *callbacks, given=given, **EVERY_STEP)


def test_options_of_a_given_optimizer_that_the_checkpoint_overrides_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_optimizer(tmp_path, 0.1, 3, StopAt(4)).train()
    with_optimizer(tmp_path, 0.1, 3).train(tmp_path / "checkpoint-4")
    assert warned(caplog) == []
    with_optimizer(tmp_path, 0.5, 2).train(tmp_path / "checkpoint-4")
    [held] = warned(caplog)
    assert "lr 0.5 instead of 0.1" in held
    assert "step_size 2 instead of 3" in held
    assert "momentum" not in held


def test_the_same_directory_in_other_words_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    trainer(Path("run"), StopAt(2), **EVERY_STEP).train()
    trainer(tmp_path / "run", **EVERY_STEP).train(resume_from_checkpoint=True)
    assert warned(caplog) == []


def test_nothing_is_named_if_nothing_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, StopAt(2), **EVERY_STEP).train()
    trainer(tmp_path, **EVERY_STEP).train(resume_from_checkpoint=True)
    assert warned(caplog) == []


@dataclass
class OwnArguments(TrainingArguments):
    """Arguments with one more."""

    patient: str = "Jane Roe"


def test_a_subclass_s_argument_is_named_and_its_value_is_in_no_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def own(patient: str, *callbacks: Any) -> Trainer:
        args = OwnArguments(**arguments(tmp_path, **EVERY_STEP).to_dict(), patient=patient)
        return Trainer(net(), args, None, data(), compute_loss=compute_loss, callbacks=callbacks)

    own("Jane Roe", StopAt(2)).train()
    files = [path for path in (tmp_path / "checkpoint-2").iterdir() if path.suffix == ".json"]
    assert not any("Jane Roe" in path.read_text() for path in files)
    own("John Doe").train(resume_from_checkpoint=True)
    [warning] = warned(caplog)
    assert "patient" in warning


def test_the_best_value_of_another_metric_does_not_count(tmp_path: Path) -> None:
    usual = {"eval_strategy": "epoch", **EVERY_STEP}
    given = {"compute_metrics": lambda evaluated: {"accuracy": 0.25}}
    trainer(
        tmp_path, StopAt(5), given=given, metric_for_best_model="loss", num_train_epochs=2, **usual
    ).train()
    state = TrainerState.load_from_json(tmp_path / "checkpoint-5" / "trainer_state.json")
    assert state.best_metric != 0.25
    resumed = trainer(tmp_path, given=given, metric_for_best_model="accuracy", **usual)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_metric == 0.25
