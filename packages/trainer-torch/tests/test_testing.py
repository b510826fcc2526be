"""`trainer_torch.testing`: a training that is the same each time, and its interruptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from callback_core import TrainerCallback
from trainer_torch.testing import (
    CONFIG,
    At,
    SmallNet,
    Trial,
    comparable,
    logged_points,
    raising,
    small_trainer,
)


class Seen(TrainerCallback):
    """Keeps the state and the configuration at the start, and every log."""

    def __init__(self) -> None:
        self.logs: list[tuple[int, dict[str, Any]]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.state = dict(vars(state))
        self.config = kwargs["model"].config.to_dict()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.logs.append((state.global_step, kwargs["logs"]))


def test_a_small_training_is_twelve_steps_in_three_epochs(tmp_path: Path) -> None:
    trained = small_trainer(tmp_path)
    trained.train()
    assert (trained.state.global_step, trained.state.epoch) == (12, 3.0)
    assert [entry["step"] for entry in trained.state.log_history if "loss" in entry] == list(
        range(1, 13)
    )
    evaluated = [entry["step"] for entry in trained.state.log_history if "eval_loss" in entry]
    assert evaluated == [4, 8, 12]


def test_a_small_training_writes_nothing_that_is_not_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "out"
    small_trainer(out).train()
    assert not out.exists() or list(out.iterdir()) == []


def test_a_small_training_learns(tmp_path: Path) -> None:
    trained = small_trainer(tmp_path)
    trained.train()
    points = logged_points(trained)
    assert points["eval/loss", 12] < points["eval/loss", 4]


def test_a_small_training_is_the_same_at_every_call(tmp_path: Path) -> None:
    losses = []
    for attempt in ("first", "second"):
        torch.rand(3)  # whatever was drawn before
        trained = small_trainer(tmp_path / attempt)
        trained.train()
        losses.append([entry["loss"] for entry in trained.state.log_history if "loss" in entry])
    assert losses[0] == losses[1]


def test_arguments_and_the_models_configuration_can_be_others(tmp_path: Path) -> None:
    seen = Seen()
    trained = small_trainer(tmp_path, seen, config={"layers": 3}, max_steps=2, run_name="other")
    trained.train()
    assert trained.state.global_step == 2
    assert trained.args.run_name == "other"
    assert seen.config == {"layers": 3}


def test_the_configuration_is_a_copy() -> None:
    SmallNet().config.to_dict()["hidden_size"] = 9
    assert SmallNet().config.to_dict() == CONFIG == {"hidden_size": 8, "rope": {"theta": 10.5}}


def test_the_points_of_a_training_are_what_its_callbacks_were_told(tmp_path: Path) -> None:
    seen = Seen()
    trained = small_trainer(tmp_path, seen)
    trained.train()
    told = {
        (f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}", step): value
        for step, logs in seen.logs
        for name, value in logs.items()
        if name != "step"
    }
    assert logged_points(trained) == told
    ends = {("train/loss", 12), ("train/train_loss", 12), ("eval/loss", 12), ("train/epoch", 12)}
    assert told.keys() >= ends


def test_comparable_points_are_equal_in_equal_trainings(tmp_path: Path) -> None:
    points = []
    for attempt in ("first", "second"):
        trained = small_trainer(tmp_path / attempt)
        trained.train()
        points.append(logged_points(trained))
    assert comparable(points[0]) == comparable(points[1])
    left_out = points[0].keys() - comparable(points[0]).keys()
    assert {name for name, _ in left_out} == {
        f"{split}{measure}"
        for split in ("train/train_", "eval/")
        for measure in ("runtime", "samples_per_second", "steps_per_second")
    }


def test_a_test_set_has_points_of_its_own(tmp_path: Path) -> None:
    trained = small_trainer(tmp_path, max_steps=1, eval_strategy="no")
    trained.train()
    trained.evaluate(metric_key_prefix="test")
    assert {name for name, step in logged_points(trained) if step == 1} >= {
        "train/loss",
        "test/loss",
    }


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=repr)
def test_a_training_ends_where_at_breaks_into_it(tmp_path: Path, error: BaseException) -> None:
    trained = small_trainer(tmp_path, At(5, raising(error)))
    with pytest.raises(type(error)) as raised:
        trained.train()
    assert raised.value is error
    assert trained.state.global_step == 5


def test_at_calls_once_and_training_goes_on(tmp_path: Path) -> None:
    called: list[int] = []
    trained = small_trainer(tmp_path, At(5, lambda: called.append(trained.state.global_step)))
    trained.train()
    assert called == [5]
    assert trained.state.global_step == 12


def test_callbacks_after_a_trial_see_a_search(tmp_path: Path) -> None:
    before, after = Seen(), Seen()
    parameters = {"learning_rate": 0.1}
    small_trainer(tmp_path, before, Trial("trial-3", parameters), after, max_steps=1).train()
    assert not before.state["is_hyper_param_search"]
    assert after.state["is_hyper_param_search"]
    assert after.state["trial_name"] == "trial-3"
    assert after.state["trial_params"] == parameters
