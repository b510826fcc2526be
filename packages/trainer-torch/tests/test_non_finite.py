"""A loss or a gradient that is not finite is told, and what happens then is as asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP
from small import Net, arguments, compute_loss, data, logged, net, trainer, warned
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from callback_core import TrainerCallback
from trainer_torch import Trainer
from trainer_torch.ranks.world import SINGLE_PROCESS
from trainer_torch.run.divergence import DivergenceGuard
from trainer_torch.storage.checkpoint import has_finite_weights, list_checkpoints
from trainer_torch.testing import At

NAN = float("nan")


def step_of(optimizer: Any) -> bool:
    optimizer.step()
    return True


class Spoils(Trainer):
    """Spoils the loss, the gradient or the weights at one step, or from one step on.

    The step decides and not a count of calls, so that a repeated step is spoilt too.
    """

    spoilt: tuple[int, ...] = ()
    how = "gradient"

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.state.global_step + 1 in self.spoilt:
            if self.how == "loss":
                return loss * NAN
            if self.how == "weights":
                nn.utils.vector_to_parameters(
                    torch.full((sum(one.numel() for one in self.model.parameters()),), NAN),
                    self.model.parameters(),
                )
                return loss
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad.fill_(NAN)
        return loss


def spoils(
    out: Path, *steps: int, how: str = "gradient", compute_metrics: Any = None, **changed: Any
) -> Spoils:
    made = Spoils(
        net(),
        arguments(out, **changed),
        train_dataset=data(),
        eval_dataset=data(9),
        compute_loss=compute_loss,
        compute_metrics=compute_metrics,
    )
    made.spoilt, made.how = steps, how
    return made


def are_finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(one).all()) for one in model.parameters())


def steps_of(out: Path, finite: bool) -> list[int]:
    found = [one for one in list_checkpoints(out) if has_finite_weights(one) == finite]
    return [int(one.name.rpartition("-")[2]) for one in found]


@pytest.mark.parametrize("how", ["gradient", "loss"])
def test_a_step_that_is_not_finite_is_told_once_by_its_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    made = spoils(tmp_path, 4, 6, how=how, logging_steps=5)
    made.train()
    first, number = warned(caplog)
    assert f"{how} of step 4" in first
    assert ("7 of 10" if how == "gradient" else "2 of 10") in number


def test_finite_training_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spoils(tmp_path, on_non_finite="skip").train()
    assert not warned(caplog)


class Overflows(nn.Module):
    """A network whose middle layer overflows once, at the input that it is told."""

    def __init__(self, backward: bool = False) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.middle, self.last = nn.Linear(4, 8), nn.Identity(), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8)
        self.step = 0
        self.backward = backward
        self.middle.register_forward_hook(self.spoil)

    def spoil(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if self.step != 4:
            return None
        if self.backward:
            return (output - output.detach()).abs().sqrt() + output.detach()
        return output / 0.0

    def forward(self, features: Tensor) -> Tensor:
        return self.last(self.norm(self.middle(self.first(features))))


class TellsTheStep(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        kwargs["model"].step = state.global_step + 1


@pytest.mark.parametrize(("backward", "named"), [(False, "middle"), (True, "first")])
def test_the_first_module_that_is_not_finite_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, backward: bool, named: str
) -> None:
    model = Overflows(backward)
    trainer(tmp_path, TellsTheStep(), given={"model": model}, max_steps=4).train()
    told = warned(caplog)[0]
    assert "step 4" in told
    others = {"first", "middle", "norm", "last"} - {named}
    assert f" {named} (" in told
    assert not [name for name in others if f" {name} (" in told]


def test_repeating_a_step_leaves_nothing_behind(tmp_path: Path) -> None:
    def trained(looks: bool) -> tuple[list[Tensor], Tensor, list[float]]:
        class Looks(TrainerCallback):
            def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
                made.run.guard = DivergenceGuard(made.args, looks)

        model = Overflows()
        made = trainer(tmp_path, Looks(), TellsTheStep(), given={"model": model}, max_steps=6)
        made.train()
        return [*model.state_dict().values()], torch.rand(1), logged(made, "loss")

    looking, blind = trained(True), trained(False)
    assert all(
        torch.equal(one.nan_to_num(), other.nan_to_num())
        for one, other in zip(looking[0], blind[0], strict=True)
    )
    assert torch.equal(looking[1], blind[1])
    assert str(looking[2]) == str(blind[2])


def test_a_loss_function_is_to_blame_if_all_modules_are_finite(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def divides(model: nn.Module, batch: Any) -> Tensor:
        loss, _ = compute_loss(model, batch)
        return loss / (0.0 if model.step == 2 else 1.0)

    model = Overflows()
    model.middle = nn.Identity()
    given = {"model": model, "compute_loss": divides}
    trainer(tmp_path, TellsTheStep(), given=given, max_steps=3).train()
    told = warned(caplog)[0]
    assert "step 2" in told
    assert not [name for name in ("first", "middle", "norm", "last") if f" {name} (" in told]


def test_a_batch_that_is_not_finite_is_to_blame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = data()
    samples.tensors[0][3, 2] = NAN
    trainer(tmp_path, given={"train_dataset": samples}, num_train_epochs=1).train()
    assert "batch" in warned(caplog)[0]


class Reads(TorchDispatchMode):
    """Counts how often a value is read from the device, which waits for it."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += str(func) == "aten._local_scalar_dense.default"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("policy", ["warn", "skip", "stop", "rollback"])
def test_no_step_waits_for_the_device(tmp_path: Path, policy: str) -> None:
    changed: dict[str, Any] = {"on_non_finite": policy, **EVERY_STEP}
    guard = DivergenceGuard(trainer(tmp_path, **changed).args, looks_at_each_step=False)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with Reads() as reads:
        for step in range(1, 4):
            guard.begin_step(model)
            model(torch.ones(2, 4)).sum().backward()
            guard.note(step, torch.tensor(1.0), torch.tensor(NAN if step == 2 else 1.0))
            guard.update(optimizer, model, step_of)
    assert reads.count == 0
    found = guard.read(SINGLE_PROCESS)
    assert found is not None
    assert (found.step, found.what) == (2, ("gradient",))


def test_stop_ends_the_training_at_the_next_log_for_a_reason_that_callbacks_see(
    tmp_path: Path,
) -> None:
    made = spoils(tmp_path, 4, on_non_finite="stop", logging_steps=3)
    made.train()
    assert made.state.global_step == 6
    [request] = [one for one in made.control.requests if one.flag == "should_training_stop"]
    assert "step 4" in str(request.reason)


def test_a_checkpoint_can_be_saved_before_training(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    given = {"model": model, "optimizers": (optimizer, schedule)}
    trainer(tmp_path, given=given).save_checkpoint()
    assert steps_of(tmp_path, finite=True) == [0]


@pytest.mark.parametrize("limit", [1, 2])
def test_the_newest_finite_checkpoint_survives_those_that_are_not(
    tmp_path: Path, limit: int
) -> None:
    spoils(tmp_path, 6, save_total_limit=limit, **EVERY_STEP).train()
    assert steps_of(tmp_path, finite=True) == [5]
    assert steps_of(tmp_path, finite=False) == [10]


def test_resuming_prefers_a_finite_checkpoint_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoils(tmp_path, 6, max_steps=8, **EVERY_STEP).train()
    resumed = trainer(tmp_path, max_steps=8, **EVERY_STEP)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.run.resumed_from == tmp_path / "checkpoint-5"
    assert are_finite(resumed.model)
    assert any("checkpoint-8" in told for told in warned(caplog))


def test_weights_that_are_not_finite_are_taken_if_they_are_named_or_all_there_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoils(tmp_path, 1, max_steps=3, **EVERY_STEP).train()
    for named in (tmp_path / "checkpoint-2", True):
        caplog.clear()
        resumed = trainer(tmp_path, given={"model": Net()}, max_steps=3)
        resumed.train(resume_from_checkpoint=named)
        taken = "checkpoint-2" if named is not True else "checkpoint-3"
        assert resumed.run.resumed_from == tmp_path / taken
        assert any(taken in told for told in warned(caplog))


def test_a_checkpoint_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    scores = iter([0.1, 0.5, 0.9, 0.8])
    made = spoils(
        tmp_path,
        3,
        compute_metrics=lambda _: {"score": next(scores)},
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="score",
        save_total_limit=1,
        **EVERY_STEP,
    )
    made.train()
    assert made.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    assert are_finite(made.model)


def test_masks_with_infinities_are_no_fault(tmp_path: Path) -> None:
    model = net()
    model.register_buffer("mask", torch.full((2, 2), -torch.inf))
    trainer(tmp_path, given={"model": model}, max_steps=1, **EVERY_STEP).train()
    assert steps_of(tmp_path, finite=True) == [1]


@pytest.mark.parametrize("policy", ["warn", "skip", "stop", "rollback"])
def test_a_resumed_training_is_the_same_to_the_bit_with_the_guard_on(
    tmp_path: Path, policy: str
) -> None:
    usual = {"on_non_finite": policy, "logging_steps": 3, "save_strategy": "steps", "save_steps": 2}
    whole = spoils(tmp_path / "whole", 5, how="loss" if policy == "warn" else "gradient", **usual)
    whole.train()
    part = spoils(tmp_path / "part", 5, how=whole.how, **usual)
    part.add_callback(At(4, lambda: part.control.request_stop("killed")))
    part.train()
    resumed = spoils(tmp_path / "part", 5, how=whole.how, **usual)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
