"""What callbacks ask for stays asked for until the loop has done it, whoever does the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small import compute_loss, data, logged, trainer

from callback_core import EarlyStoppingCallback, TrainerCallback
from trainer_torch import Trainer

BEST = {"metric_for_best_model": "loss", "eval_strategy": "epoch", "save_strategy": "epoch"}


class Does(TrainerCallback):
    """Calls a method of the trainer itself at an event of a training."""

    def __init__(self, event: str, call: Any) -> None:
        self.trainer: Any = None
        self.call = call
        setattr(self, event, self._do)

    def _do(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.call(self.trainer)


def on_training_data(trained: Trainer) -> None:
    trained.evaluate(data(), metric_key_prefix="train")


CALLS = {
    "evaluates the training data": on_training_data,
    "evaluates": lambda trained: trained.evaluate(),
    "logs": lambda trained: trained.log({"mine": 1.0}),
    "predicts": lambda trained: trained.predict(data(4)),
    "evaluates and logs": lambda trained: (
        on_training_data(trained),
        trained.log({"mine": 1.0}),
    ),
}


def trained_with(output_dir: Path, does: Does, *more: Any, **changed: Any) -> Trainer:
    made = trainer(output_dir, does, *more, **changed)
    does.trainer = made
    made.train()
    return made


@pytest.mark.parametrize("event", ["on_step_end", "on_epoch_end", "on_log", "on_substep_end"])
@pytest.mark.parametrize("call", ["evaluates the training data", "logs", "predicts"])
def test_the_loss_and_the_evaluation_that_are_due_come_all_the_same(
    tmp_path: Path, event: str, call: str
) -> None:
    def once(trained: Trainer) -> None:  # an event that a callback causes is one of its own
        if not busy:
            busy.append(True)
            CALLS[call](trained)
            busy.clear()

    busy: list[bool] = []
    usual = {**BEST, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
    plain = trainer(tmp_path / "plain", **usual)
    plain.train()
    made = trained_with(tmp_path / "made", Does(event, once), **usual)
    for name in ("loss", "eval_loss"):
        assert logged(made, name) == logged(plain, name)
    assert made.state.best_metric == plain.state.best_metric is not None
    assert made.state.best_model_checkpoint is not None


@pytest.mark.parametrize("call", CALLS)
def test_early_stopping_counts_the_evaluations_of_the_loop(tmp_path: Path, call: str) -> None:
    usual = {**BEST, "learning_rate": 0.0, "num_train_epochs": 5}
    stopping = EarlyStoppingCallback(2)
    made = trained_with(tmp_path, Does("on_epoch_end", CALLS[call]), stopping, **usual)
    assert made.state.global_step == 15
    assert stopping.early_stopping_patience_counter == 2


def test_a_checkpoint_of_a_callback_does_not_take_the_place_of_the_loop_s(tmp_path: Path) -> None:
    made = trained_with(tmp_path, Does("on_epoch_end", lambda t: t.save_checkpoint()), **BEST)
    assert (tmp_path / "checkpoint-10").is_dir()
    assert made.state.best_model_checkpoint is not None


class LogsItself(Trainer):
    """Logs a value of its own in each batch, and may ask to stop."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if model.training:
            self.log({"mine": 1.0})
            self.control.should_training_stop |= self.state.global_step == 3
        return super().compute_loss(model, inputs, *args, **kwargs)


class AsksEarly(TrainerCallback):
    """Asks for a log when a step begins."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_log = True


def test_a_trainer_that_logs_by_itself_takes_no_request_away(tmp_path: Path) -> None:
    plain = trainer(tmp_path)
    made = LogsItself(
        plain.model,
        plain.args,
        train_dataset=plain.train_dataset,
        compute_loss=compute_loss,
        callbacks=[AsksEarly],
    )
    made.args.logging_strategy = "no"
    made.train()
    assert [entry["step"] for entry in made.state.log_history if "loss" in entry] == [1, 2, 3, 4]
    assert [request.by for request in made.control.requests] == ["LogsItself"]
