"""Mixed precision, and evaluation with weights in half precision."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import same, weights
from small import arguments, compute_loss, data, logged, net, trainer
from torch import Tensor, nn
from torch.optim import SGD, AdamW

from callback_core import TrainerCallback
from trainer_torch import Trainer, TrainingArguments

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Sees:
    """A loss that notes the types of what the model returns, in training and in evaluations."""

    def __init__(self) -> None:
        self.types: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def __call__(self, model: nn.Module, batch: list[Tensor]) -> Any:
        loss, scores = compute_loss(model, batch)
        self.types[model.training].add(scores.dtype)
        return loss, scores


@pytest.mark.parametrize("name", HALVES)
def test_the_model_computes_in_half_precision_with_float32_weights(
    tmp_path: Path, name: str
) -> None:
    sees = Sees()
    made = trainer(tmp_path, given={"compute_loss": sees}, eval_strategy="epoch", **{name: True})
    made.train()
    assert sees.types == {True: {HALVES[name]}, False: {HALVES[name]}}
    assert {one.dtype for one in weights(made)} == {torch.float32}


def test_an_evaluation_without_training_computes_in_half_precision(tmp_path: Path) -> None:
    sees = Sees()
    trainer(tmp_path, given={"compute_loss": sees}, bf16=True).evaluate()
    assert sees.types[False] == {torch.bfloat16}


def test_in_bfloat16_a_small_model_learns_as_well_as_in_float32(tmp_path: Path) -> None:
    def final_loss(**changed: Any) -> float:
        made = trainer(tmp_path, max_steps=200, learning_rate=0.003, seed=1, **changed)
        made.train()
        return made.evaluate(data())["eval_loss"]

    assert final_loss(bf16=True) == pytest.approx(final_loss(), rel=0.01)


@pytest.mark.parametrize("names", [("bf16", "fp16"), ("bf16_full_eval", "fp16_full_eval")])
def test_only_one_of_the_half_precisions_may_be_asked_for(names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=" and ".join(names)):
        TrainingArguments(**dict.fromkeys(names, True))


class Overflows:
    """A loss whose gradients overflow in the batches of these numbers."""

    def __init__(self, *numbers: int) -> None:
        self.numbers, self.batches = numbers, 0

    def __call__(self, model: nn.Module, batch: list[Tensor]) -> Any:
        loss, scores = compute_loss(model, batch)
        if model.training:
            self.batches += 1
            loss = loss * (1e38 if self.batches in self.numbers else 1.0)
        return loss, scores


class Events(TrainerCallback):
    """Notes the events of each step, and the weights and the learning rate at its end."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.weights: list[list[Tensor]] = []
        self.rates: list[float] = []

    def on_pre_optimizer_step(self, *given: Any, **parts: Any) -> None:
        self.events.append("on_pre_optimizer_step")

    def on_optimizer_step(self, *given: Any, **parts: Any) -> None:
        self.events.append("on_optimizer_step")

    def on_step_end(self, *given: Any, model: Any, lr_scheduler: Any, **parts: Any) -> None:
        self.events.append("on_step_end")
        self.weights.append([one.detach().clone() for one in model.parameters()])
        self.rates.append(lr_scheduler.get_last_lr()[0])


@pytest.fixture(params=["given by the arguments", "fused"])
def overflown(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A training with an overflow in its third step, and what a callback saw of it."""
    events, model = Events(), net()
    given: dict[str, Any] = {"model": model, "compute_loss": Overflows(3)}
    if request.param == "fused":  # it leaves steps out itself, without the CPU
        given["optimizers"] = (AdamW(model.parameters(), lr=0.05, fused=True), None)
    made = trainer(tmp_path, events, given=given, fp16=True, max_steps=6)
    made.train()
    return made, events


def test_a_step_that_overflows_changes_neither_the_weights_nor_the_schedule(overflown: Any) -> None:
    _, seen = overflown
    assert same(seen.weights[1], seen.weights[2])
    assert not same(seen.weights[2], seen.weights[3])
    assert seen.rates[1] == seen.rates[2] > seen.rates[3]


def test_a_step_that_overflows_is_counted_and_fires_all_events(overflown: Any) -> None:
    made, seen = overflown
    assert made.state.global_step == 6
    assert seen.events == ["on_pre_optimizer_step", "on_optimizer_step", "on_step_end"] * 6


def test_the_logged_gradient_norm_shows_an_overflow_and_is_unscaled_otherwise(
    overflown: Any, tmp_path: Path
) -> None:
    norms = logged(overflown[0], "grad_norm")
    plain = trainer(tmp_path / "plain", max_steps=6)
    plain.train()
    assert [math.isfinite(norm) for norm in norms] == [True, True, False, True, True, True]
    assert norms[:2] == pytest.approx(logged(plain, "grad_norm")[:2], rel=0.02)


def test_the_scale_is_halved_by_an_overflow(overflown: Any) -> None:
    assert overflown[0].run.precision.state_dict()["scale"] == 2.0**15


def test_a_second_training_begins_with_the_first_scale(overflown: Any) -> None:
    made, _ = overflown
    made.args.max_steps = 1
    made.train()
    assert made.run.precision.state_dict()["scale"] == 2.0**16


class Stops(TrainerCallback):
    """Ends the training after a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [2, 4, 7])
def test_a_killed_training_with_an_overflow_resumes_to_the_bit(tmp_path: Path, step: int) -> None:
    def make(name: str, loss: Any, *callbacks: Any) -> Trainer:
        options = {"fp16": True, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
        return trainer(tmp_path / name, *callbacks, given={"compute_loss": loss}, **options)

    whole = make("whole", Overflows(3, 6))
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        make("killed", Overflows(3, 6), Stops(step)).train()
    done = step - 1  # the last checkpoint is that of the step before
    resumed = make("killed", Overflows(*(number - done for number in (3, 6))))
    resumed.train(resume_from_checkpoint=True)
    assert same(weights(resumed), weights(whole))
    assert resumed.run.precision.state_dict() == whole.run.precision.state_dict()
    assert str(resumed.state.log_history[:-1]) == str(whole.state.log_history[:-1])  # some are NaN


def test_gradients_that_the_optimizer_does_not_use_are_unscaled_too(tmp_path: Path) -> None:
    def norm(**changed: Any) -> float:
        model = net()
        optimizer = SGD(model.layers[3].parameters(), lr=0.1)
        given = {"model": model, "optimizers": (optimizer, None)}
        made = trainer(tmp_path, given=given, max_steps=1, **changed)
        made.train()
        return logged(made, "grad_norm")[0]

    assert norm(fp16=True) == pytest.approx(norm(), rel=0.02)


def test_float16_weights_cannot_be_trained_with_a_scaled_loss(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layers\.0\.weight"):
        trainer(tmp_path, given={"model": net().half()}, fp16=True)


def test_the_gradients_of_an_overridden_step_must_be_scaled(tmp_path: Path) -> None:
    class Unscaled(Trainer):
        def training_step(self, *given: Any, **options: Any) -> Tensor:
            loss, _ = compute_loss(self.model, [torch.ones(2, 4), torch.zeros(2, dtype=torch.long)])
            loss.backward()
            return loss.detach()

    made = Unscaled(net(), arguments(tmp_path, fp16=True), train_dataset=data())
    with pytest.raises(RuntimeError, match=r"accelerator\.backward"):
        made.train()


class Float32(Trainer):
    def training_step(self, *given: Any, **options: Any) -> Tensor:
        loss, _ = compute_loss(self.model, [torch.ones(2, 4), torch.zeros(2, dtype=torch.long)])
        self.accelerator.backward(loss)
        return loss.detach()


def test_an_overridden_step_without_mixed_precision_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"args": arguments(tmp_path, bf16=True), "train_dataset": data()}
    Float32(net(), **given).train()
    told = [one for one in caplog.records if "context_manager" in one.getMessage()]
    assert len(told) == 1


def test_a_scale_below_one_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loss = Overflows(*range(1, 100))
    trainer(tmp_path, given={"compute_loss": loss}, fp16=True, max_steps=20).train()
    assert len([one for one in caplog.records if "float16" in one.getMessage()]) == 1


@pytest.mark.parametrize("name", [*HALVES, "bf16_full_eval", "fp16_full_eval"])
def test_a_device_that_cannot_compute_in_half_precision_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("trainer_torch.model.precision.can_compute_in", lambda dtype, device: False)
    with pytest.raises(ValueError, match=rf"^{name} "):
        trainer(tmp_path, **{name: True})


@pytest.mark.parametrize(("name", "dtype"), HALVES.items())
def test_full_evaluation_converts_the_weights_and_gives_them_back(
    tmp_path: Path, name: str, dtype: torch.dtype
) -> None:
    seen = set()

    def notes(model: nn.Module, batch: list[Tensor]) -> Any:
        seen.update(one.dtype for one in model.parameters())
        return compute_loss(model, batch)

    made = trainer(tmp_path, given={"compute_loss": notes}, **{f"{name}_full_eval": True})
    before = weights(made)
    metrics = made.evaluate()
    assert seen == {dtype}
    assert same(before, weights(made))
    plain = trainer(tmp_path).evaluate()
    assert metrics["eval_loss"] == pytest.approx(plain["eval_loss"], rel=0.01)


def test_weights_come_back_after_an_error_in_a_full_evaluation(tmp_path: Path) -> None:
    def fails(model: nn.Module, batch: list[Tensor]) -> Any:
        raise ZeroDivisionError

    made = trainer(tmp_path, given={"compute_loss": fails}, bf16_full_eval=True)
    before = weights(made)
    with pytest.raises(ZeroDivisionError):
        made.evaluate()
    assert same(before, weights(made))


def test_an_evaluation_within_the_training_keeps_the_weights_as_they_are(tmp_path: Path) -> None:
    sees = Sees()
    given = {"compute_loss": sees}
    made = trainer(tmp_path, given=given, bf16_full_eval=True, eval_strategy="epoch")
    made.train()
    assert sees.types[False] == {torch.float32}
