"""`callback_core.Loop` in loops as people write them: PyTorch, numpy, scikit-learn, a bandit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import own_loops
import pytest
import torch
from launching import launch, reports
from own_loops import train
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from small import trainer
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from callback_core import EVENTS, Loop, PrinterCallback, TrainerCallback


class Order(TrainerCallback):
    """Notes the events of steps, and the gradients that callbacks see."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    def _note(self, name: str, model: nn.Module) -> None:
        gradient = next(model.parameters()).grad
        self.seen.append((name, gradient is not None and bool(gradient.any())))

    def on_step_begin(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
        self._note("step_begin", model)

    def on_pre_optimizer_step(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
        self._note("pre_optimizer_step", model)

    def on_optimizer_step(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
        self._note("optimizer_step", model)

    def on_step_end(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
        self._note("step_end", model)


def test_the_step_of_an_optimizer_fires_its_events_while_there_are_gradients() -> None:
    order = Order()
    train([order], {"max_steps": 2})
    once = [("pre_optimizer_step", True), ("optimizer_step", True), ("step_end", False)]
    assert order.seen == [("step_begin", False), *once] * 2


def test_an_optimizer_is_watched_only_during_the_training() -> None:
    order = Order()
    loop = train([order], {"max_steps": 1})
    before = len(order.seen)
    loop.handler.optimizer.step()
    assert len(order.seen) == before


def test_pytorch_trains_and_logs_the_mean_loss_and_the_rate() -> None:
    loop = train([], {"num_train_epochs": 5, "logging_steps": 4})
    losses = [log["loss"] for log in loop.state.log_history]
    assert len(losses) == 5
    assert losses[-1] < losses[0] / 2
    assert {log["learning_rate"] for log in loop.state.log_history} == {0.1}


def test_a_mean_of_bfloat16_has_more_digits_than_bfloat16() -> None:
    with Loop([PrinterCallback], {"max_steps": 1000, "logging_strategy": "no"}) as loop:
        for _ in loop.steps():
            loop.report(loss=torch.tensor(1.5, dtype=torch.bfloat16))
    assert loop.state.log_history[0]["loss"] == 1.5


def test_the_loss_that_callbacks_see_holds_no_graph() -> None:
    class Sees(TrainerCallback):
        loss: Any = None

        def on_step_end(self, *args: Any, loss: Any = None, **kwargs: Any) -> None:
            self.loss = loss

    sees = Sees()
    train([sees], {"max_steps": 1})
    assert sees.loss.grad_fn is None


def test_each_epoch_of_a_distributed_sampler_has_an_order_of_its_own() -> None:
    data = list(range(16))
    batches = DataLoader(data, 16, sampler=DistributedSampler(data, num_replicas=1, rank=0))
    seen = []
    with Loop([PrinterCallback], {"num_train_epochs": 2}, train_dataloader=batches) as loop:
        for batch in loop.steps():
            seen.append(batch.tolist())
    assert sorted(seen[0]) == sorted(seen[1])
    assert seen[0] != seen[1]


def test_numpy_trains() -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(64, 3))
    targets = inputs @ np.array([1.0, 2.0, 3.0])
    weights = np.zeros(3)
    with Loop([PrinterCallback], {"num_train_epochs": 20, "logging_steps": 10}) as loop:
        for _ in loop.epochs():
            for rows in loop.steps(np.split(generator.permutation(64), 8)):
                error = inputs[rows] @ weights - targets[rows]
                weights -= 0.1 * 2 * inputs[rows].T @ error / len(rows)
                loop.report(loss=np.float32(np.mean(error**2)))
    assert loop.state.log_history[-1]["loss"] < 1e-3
    assert type(loop.state.log_history[-1]["loss"]) is float


def test_scikit_learn_trains_by_partial_fit() -> None:
    digits = load_digits()
    classes, model = np.unique(digits.target), SGDClassifier(random_state=0)
    batches = [slice(start, start + 100) for start in range(0, 1700, 100)]

    def evaluate() -> dict[str, float]:
        return {"accuracy": model.score(digits.data[1700:], digits.target[1700:])}

    args = {"num_train_epochs": 3, "metric_for_best_model": "accuracy"}
    loop = Loop([PrinterCallback], args, train_dataloader=batches, evaluate=evaluate)
    with loop:
        for rows in loop.steps():
            model.partial_fit(digits.data[rows], digits.target[rows], classes)
    assert [log["epoch"] for log in loop.state.log_history] == [1.0, 2.0, 3.0]
    assert loop.state.best_metric is not None
    assert loop.state.best_metric > 0.85


def test_reinforcement_learning_trains_without_epochs() -> None:
    """A bandit has two arms. The second pays more."""
    values, chance = [0.0, 0.0], random.Random(0)
    with Loop([PrinterCallback], {"max_steps": 200, "logging_steps": 50}) as loop:
        for step in loop.steps():
            arm = chance.randrange(2) if step % 5 == 0 else values.index(max(values))
            reward = chance.random() + arm
            values[arm] += 0.1 * (reward - values[arm])
            loop.report(reward=reward)
    rewards = [log["reward"] for log in loop.state.log_history]
    assert len(rewards) == 4
    assert rewards[-1] > 1.0


@pytest.mark.slow
def test_two_processes_stop_together_and_share_their_means_and_checkpoints(tmp_path: Path) -> None:
    done = launch(own_loops.__file__, "stop", tmp_path)
    assert done.returncode == 0, done.stderr
    main, other = reports(tmp_path)
    assert main["steps"] == other["steps"] == 3
    assert "rank 1" in main["requests"][0]
    assert [log for log in main["history"] if "loss" in log] == [
        log for log in other["history"] if "loss" in log
    ]
    assert (main["is_main"], other["is_main"]) == (True, False)
    assert (tmp_path / "checkpoint-2" / "saved_by").read_text() == "0"


class Events(TrainerCallback):
    """Notes each event with the step and the flags that are on."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, list[str]]] = []


def _noting(name: str) -> Any:
    def method(self: Events, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        on = [flag for flag, value in control.state()["args"].items() if value]
        self.seen.append((name, state.global_step, on))

    return method


for _name in EVENTS:
    setattr(Events, _name, _noting(_name))

STRATEGIES: tuple[dict[str, Any], ...] = (
    {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 4},
    {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"},
    {"logging_steps": 3, "logging_first_step": True, "eval_strategy": "steps", "eval_delay": 5},
    {"max_steps": 7, "gradient_accumulation_steps": 3, "eval_strategy": "epoch", "eval_delay": 2},
    {"num_train_epochs": 1.5, "gradient_accumulation_steps": 2, "save_strategy": "no"},
)


def without_last_log(events: Events) -> list[tuple[str, int, list[str]]]:
    """Return the events without the log at the end, for which the Trainer has its own metrics."""
    return [*events.seen[:-2], *(one for one in events.seen[-2:] if one[0] != "on_log")]


@pytest.mark.parametrize("strategies", STRATEGIES)
def test_a_loop_of_one_s_own_fires_the_events_of_the_trainer(
    strategies: dict[str, Any], tmp_path: Path
) -> None:
    args = {"num_train_epochs": 2, "logging_steps": 2, **strategies}
    by_trainer, by_loop = Events(), Events()
    made = trainer(tmp_path / "trainer", by_trainer, **args)
    made.train()
    evaluated = made.get_eval_dataloader()

    def evaluate() -> dict[str, float]:
        return {"loss": float(len(list(loop.prediction_steps(evaluated))))}

    saved: list[Path] = []
    usual = {"output_dir": str(tmp_path / "loop"), "eval_strategy": "no", "save_strategy": "no"}
    parts = {"model": made.model, "optimizer": made.optimizer}
    loop = Loop(
        [by_loop, PrinterCallback],
        {**usual, **args},
        train_dataloader=made.get_train_dataloader(),
        evaluate=evaluate,
        save=saved.append,
        **parts,
    )
    with loop:
        for _ in loop.steps():
            loop.report(loss=1.0)
            if loop.completes_step:
                made.optimizer.step()
    assert without_last_log(by_loop) == without_last_log(by_trainer)
