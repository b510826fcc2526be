"""The trainer as a whole: its callbacks, and what they are told when training ends badly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small import data, trainer

from callback_core import (
    DefaultFlowCallback,
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)


class Witness(TrainerCallback):
    """Keeps what it is told about the end."""

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
