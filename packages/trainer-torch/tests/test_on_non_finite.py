"""Updates that are skipped, and rollbacks, after a step that is not finite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP
from safetensors.torch import load_file
from small import compute_loss, data, logged, net, trainer, warned
from test_non_finite import Spoils, are_finite, spoils, step_of, steps_of
from torch import nn

from callback_core import TrainerCallback
from trainer_torch import WeightAveragingCallback
from trainer_torch.callbacks.averaging import AVERAGE
from trainer_torch.model.weights import MODEL
from trainer_torch.run.divergence import DivergenceGuard
from trainer_torch.testing import At


@pytest.mark.parametrize("how", ["gradient", "loss"])
def test_skip_leaves_weights_finite_and_counts_the_step(tmp_path: Path, how: str) -> None:
    made = spoils(tmp_path, 2, 7, how=how, on_non_finite="skip")
    made.train()
    assert are_finite(made.model)
    assert made.state.global_step == 10
    assert logged(made, "learning_rate") == pytest.approx([0.005 * (10 - s) for s in range(10)])


class Watches(TrainerCallback):
    """Keeps copies of the weights, the buffers and the optimizer's state after each step."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        states = [one for kept in parts["optimizer"].state.values() for one in kept.values()]
        tensors = [*parts["model"].state_dict().values(), *filter(torch.is_tensor, states)]
        self.seen.append([one.clone() for one in tensors])


@pytest.mark.parametrize("name", ["AdamW", "fused AdamW", "SGD", "fused SGD"])
@pytest.mark.parametrize("looks", [True, False])
def test_a_skipped_step_changes_no_weight_no_buffer_and_no_state_of_the_optimizer(
    tmp_path: Path, name: str, looks: bool
) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    fused, _, kind = name.rpartition("fused ")
    options = {"momentum": 0.9} if kind == "SGD" else {"weight_decay": 0.1}
    optimizer = getattr(torch.optim, kind)(
        model.parameters(), lr=0.01, fused=bool(fused), **options
    )
    watches = Watches()

    class Blinds(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            made.run.guard = DivergenceGuard(made.args, looks)

    made = Spoils(
        model,
        trainer(tmp_path, on_non_finite="skip", max_steps=6).args,
        None,
        data(),
        compute_loss=compute_loss,
        optimizers=(optimizer, None),
        callbacks=[Blinds(), watches],
    )
    made.spoilt = (4,)
    made.train()
    before, after = watches.seen[2], watches.seen[3]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not torch.equal(watches.seen[3][0], watches.seen[4][0])
    assert are_finite(model)


def test_a_first_step_that_is_skipped_leaves_a_sound_optimizer(tmp_path: Path) -> None:
    made = spoils(tmp_path, 1, on_non_finite="skip", max_steps=3)
    made.train()
    assert are_finite(made.model)


def test_only_an_optimizer_that_cannot_skip_on_the_device_is_told_of_as_slow(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    args = trainer(tmp_path, on_non_finite="skip").args
    model = net()
    for fused, warns in ((True, 0), (False, 1)):
        guard = DivergenceGuard(args, looks_at_each_step=False)
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        model(torch.ones(1, 4)).sum().backward()
        for _ in range(2):
            guard.begin_step(model)
            guard.note(1, torch.tensor(1.0), torch.tensor(1.0))
            guard.update(optimizer, model, step_of)
        assert len(warned(caplog)) == warns


def test_rollback_goes_on_from_the_last_finite_weights_with_the_data_that_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = spoils(tmp_path, 5, on_non_finite="rollback", **EVERY_STEP)
    made.train()
    assert made.state.global_step == 10
    assert are_finite(made.model)
    assert steps_of(tmp_path, finite=False) == []
    before, after = (load_file(tmp_path / f"checkpoint-{step}" / MODEL) for step in (4, 5))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert logged(made, "learning_rate") == pytest.approx([0.005 * (10 - s) for s in range(10)])
    [told] = warned(caplog)
    assert "step 5" in told and "checkpoint-4" in told


def test_rollback_takes_the_state_of_the_optimizer_too(tmp_path: Path) -> None:
    made = spoils(tmp_path, 5, on_non_finite="rollback", **EVERY_STEP)
    made.train()
    saved = [torch.load(tmp_path / f"checkpoint-{step}" / "optimizer.pt") for step in (4, 5)]
    for number, state in saved[0]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, saved[1]["state"][number][name])


def test_rollback_takes_the_average_of_the_weights_too(tmp_path: Path) -> None:
    made = spoils(tmp_path, 5, on_non_finite="rollback", **EVERY_STEP)
    made.add_callback(WeightAveragingCallback())
    made.train()
    before, after = (load_file(tmp_path / f"checkpoint-{step}" / AVERAGE) for step in (4, 5))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert are_finite(made.model)


def test_rollback_takes_the_scale_of_fp16_too(tmp_path: Path) -> None:
    rolls_back = {"on_non_finite": "rollback", "logging_steps": 5, "fp16": True}
    saves = {"save_strategy": "steps", "save_steps": 5}
    made = spoils(tmp_path, 7, how="weights", **rolls_back, **saves)
    scales: list[float] = []
    made.add_callback(At(5, lambda: scales.append(made.run.precision.state_dict()["scale"])))
    made.train()
    saved = (tmp_path / f"checkpoint-{step}" / "progress.json" for step in (5, 10))
    assert [json.loads(one.read_text())["precision"]["scale"] for one in saved] == scales * 2
    assert are_finite(made.model)


@pytest.mark.parametrize("policy", ["warn", "skip"])
def test_with_fp16_a_gradient_that_overflows_is_skipped_and_is_no_divergence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    watches = Watches()
    made = spoils(tmp_path, 4, fp16=True, on_non_finite=policy)
    made.add_callback(watches)
    made.train()
    before, after = watches.seen[2], watches.seen[3]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not warned(caplog)
    assert made.run.guard.steps == 0


def test_with_fp16_a_skipped_step_leaves_the_buffers_too(tmp_path: Path) -> None:
    usual = trainer(tmp_path, fp16=True, on_non_finite="skip", max_steps=6)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    watches = Watches()
    made = Spoils(model, usual.args, None, data(), compute_loss=compute_loss, callbacks=[watches])
    made.spoilt = (4,)
    made.train()
    before, after = watches.seen[2], watches.seen[3]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not torch.equal(watches.seen[3][0], watches.seen[4][0])


def test_rollback_of_an_optimizer_with_other_groups_says_that_its_state_begins_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = spoils(tmp_path, 5, on_non_finite="rollback", save_strategy="steps", save_steps=3)
    extra = nn.Parameter(torch.ones(2), requires_grad=False)
    made.model.register_parameter("extra", extra)

    def add_group() -> None:
        made.optimizer.add_param_group({"params": [extra]})

    made.add_callback(At(4, add_group))
    made.train()
    assert made.state.global_step == 10
    assert are_finite(made.model)
    assert "optimizer" in warned(caplog)[-1]


def test_rollback_gives_up_where_it_would_loop_for_ever(tmp_path: Path) -> None:
    made = spoils(
        tmp_path,
        *range(3, 99),
        on_non_finite="rollback",
        save_strategy="steps",
        save_steps=2,
        max_steps=30,
    )
    made.train()
    assert steps_of(tmp_path, finite=True)[0] == 2
    assert made.state.global_step < 30
    [request] = [one for one in made.control.requests if one.flag == "should_training_stop"]
    assert request.reason


def test_rollback_without_a_finite_checkpoint_stops(tmp_path: Path) -> None:
    made = spoils(tmp_path, 1, on_non_finite="rollback", **EVERY_STEP)
    made.train()
    assert made.state.global_step == 1
