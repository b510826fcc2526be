"""The trainer as a whole: its callbacks, and their events when a training fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import arguments, compute_loss, data, logged, net, trainer

from callback_core import (
    EVENTS,
    DefaultFlowCallback,
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)
from trainer_torch import Trainer


class Witness(TrainerCallback):
    """Keeps the events of the end."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def on_exception(
        self, args: Any, state: Any, control: Any, exception: Any = None, **kwargs: Any
    ) -> None:
        self.told.append(exception)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.told.append("end")


class FailsAt(TrainerCallback):
    """Raises at the end of a step."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            raise self.error


@pytest.mark.parametrize(
    "error", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)], ids=repr
)
def test_what_ends_a_training_reaches_the_callbacks_and_then_the_caller(
    tmp_path: Path, error: BaseException
) -> None:
    witness = Witness()
    with pytest.raises(type(error)) as raised:
        trainer(tmp_path, witness, FailsAt(error)).train()
    assert witness.told == [error, "end"]
    assert raised.value is error


def test_a_training_that_ends_well_tells_of_no_exception(tmp_path: Path) -> None:
    witness = Witness()
    trainer(tmp_path, witness).train()
    assert witness.told == ["end"]


def test_callbacks_come_after_the_flow_and_before_what_shows_progress(tmp_path: Path) -> None:
    shown = trainer(
        tmp_path, Witness, EarlyStoppingCallback, disable_tqdm=False
    ).callback_handler.callbacks
    assert [type(callback) for callback in shown] == [
        DefaultFlowCallback,
        Witness,
        EarlyStoppingCallback,
        ProgressCallback,
    ]
    assert (
        type(trainer(tmp_path, disable_tqdm=True).callback_handler.callbacks[-1]) is PrinterCallback
    )


def test_a_bar_of_the_user_replaces_the_trainer_s_own(tmp_path: Path) -> None:
    bar = ProgressCallback(max_str_len=20)
    assert trainer(tmp_path, bar, disable_tqdm=False).callback_handler.callbacks[1:] == [bar]


def test_callbacks_are_added_popped_and_removed(tmp_path: Path) -> None:
    witness, made = Witness(), trainer(tmp_path)
    made.add_callback(witness)
    made.add_callback(EarlyStoppingCallback)
    made.remove_callback(EarlyStoppingCallback)
    assert made.pop_callback(Witness) is witness
    made.train()
    assert witness.told == []


def test_callbacks_are_given_the_trainer_s_own_parts(tmp_path: Path) -> None:
    class Sees(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.update(kwargs)

    seen: dict[str, Any] = {}
    made = trainer(tmp_path, Sees, given={"processing_class": "tokenizer"})
    made.train()
    assert (seen["model"], seen["optimizer"], seen["lr_scheduler"]) == (
        made.model,
        made.optimizer,
        made.lr_scheduler,
    )
    assert seen["train_dataloader"] is made.train_dataloader
    assert seen["tokenizer"] == seen["processing_class"] == "tokenizer"


def test_parts_of_the_run_can_be_replaced_on_the_trainer_before_training(tmp_path: Path) -> None:
    class Sees(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append((args, kwargs["model"]))

    seen: list[Any] = []
    made = trainer(tmp_path / "first", Sees)
    first, second = made.model, net()
    before = first.state_dict()["layers.0.weight"].clone()
    made.model, made.args = second, arguments(tmp_path / "second", max_steps=1)
    assert (made.run.model, made.run.args) == (second, made.args)
    made.train()
    assert seen == [(made.args, second)]
    assert torch.equal(first.state_dict()["layers.0.weight"], before)
    assert not torch.equal(second.state_dict()["layers.0.weight"], before)
    assert made.model_wrapped is second


def test_early_stopping_ends_the_training_and_says_why(tmp_path: Path) -> None:
    made = trainer(
        tmp_path,
        EarlyStoppingCallback(early_stopping_patience=2),
        given={"compute_metrics": lambda evaluated: {"score": 0.5}},
        num_train_epochs=9,
        eval_strategy="epoch",
        metric_for_best_model="score",
    )
    made.train()
    assert made.state.epoch == 3.0
    assert [request.by for request in made.control.requests] == ["EarlyStoppingCallback"]


def test_the_history_has_every_log_with_its_step_and_epoch(tmp_path: Path) -> None:
    made = trainer(tmp_path, logging_steps=5)
    output = made.train()
    assert [(entry["step"], entry["epoch"]) for entry in made.state.log_history] == [
        (5, 1.0),
        (10, 2.0),
        (10, 2.0),
    ]
    assert made.state.log_history[-1]["train_loss"] == output.training_loss
    assert output.metrics["train_samples_per_second"] > 0


def test_two_trainings_with_the_same_seed_are_the_same_whatever_happens_between(
    tmp_path: Path,
) -> None:
    first, second = trainer(tmp_path), trainer(tmp_path)
    second.evaluate(data(3))
    assert first.train().training_loss == second.train().training_loss


class Weighted(Trainer):
    """Doubles the loss."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
        loss, scores = super().compute_loss(model, inputs, return_outputs=True)
        return (loss * 2, scores) if self.with_scores else loss * 2

    with_scores = True


@pytest.mark.parametrize("with_scores", [True, False])
def test_a_subclass_may_compute_the_loss_and_return_it_with_or_without_predictions(
    tmp_path: Path, with_scores: bool
) -> None:
    usual = trainer(tmp_path)
    usual.train()
    Weighted.with_scores = with_scores
    doubled = Weighted(
        net(), usual.args, train_dataset=data(), eval_dataset=data(9), compute_loss=compute_loss
    )
    doubled.train()
    assert logged(doubled, "loss")[0] == pytest.approx(2 * logged(usual, "loss")[0])


def test_a_user_s_own_loss_without_a_gradient_is_an_error_at_the_first_step(tmp_path: Path) -> None:
    def detached(model: Any, batch: Any) -> Any:
        return model(batch[0]).sum().detach()

    with pytest.raises(ValueError, match=r"compute_loss .*no_grad"):
        trainer(tmp_path, given={"compute_loss": detached}).train()


class BreaksAt(TrainerCallback):
    """Raises at an event."""

    def __init__(self, event: str, on_error: str = "raise") -> None:
        self.on_error = on_error  # type: ignore[assignment]
        setattr(self, event, self.fail)

    def fail(self, *args: Any, **kwargs: Any) -> None:
        raise OSError("tracker down")


@pytest.mark.parametrize("event", ["on_exception", "on_train_end"])
def test_an_error_while_closing_never_masks_the_one_that_ended_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, event: str
) -> None:
    witness = Witness()
    with pytest.raises(ValueError, match="broken"):
        trainer(tmp_path, BreaksAt(event), FailsAt(ValueError("broken")), witness).train()
    assert [str(told) for told in witness.told] == ["broken", "end"]
    assert "tracker down" in caplog.text


@pytest.mark.parametrize("event", [event for event in EVENTS if event != "on_push_begin"])
def test_a_tracker_that_always_fails_costs_the_training_nothing(tmp_path: Path, event: str) -> None:
    usual = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    without = trainer(tmp_path / "without", **usual)
    without.train()
    within = trainer(tmp_path / "within", BreaksAt(event, on_error="isolate"), **usual)
    within.train()
    assert logged(within, "loss") == logged(without, "loss")
    assert within.state.global_step == without.state.global_step
