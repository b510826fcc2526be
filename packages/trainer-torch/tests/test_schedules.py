"""The schedules by name: their rates, their options, and that they resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import THREE_EPOCHS, assert_exact
from small import arguments, logged, trainer, warned
from torch import nn
from torch.optim import SGD

from callback_core import TrainerCallback
from trainer_torch import Trainer, TrainingArguments
from trainer_torch.optimizers.greedy import GreedyLR
from trainer_torch.optimizers.schedules import SCHEDULES

# transformers 5.23.0: get_scheduler(name, SGD(lr=1), num_warmup_steps=2, num_training_steps=6).
# tests/peers compares 1,000 steps of each.
EXPECTED: list[tuple[str, dict[str, Any], list[float]]] = [
    ("linear", {}, [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]),
    ("cosine", {}, [0.0, 0.5, 1.0, 0.853553, 0.5, 0.146447, 0.0]),
    ("cosine_with_restarts", {"num_cycles": 2}, [0.0, 0.5, 1.0, 0.5, 1.0, 0.5, 0.0]),
    (
        "polynomial",
        {"power": 2.0, "lr_end": 0.1},
        [0.0, 0.5, 1.0, 0.60625, 0.325, 0.15625, 0.1],
    ),
    ("constant", {}, [1.0] * 7),
    ("constant_with_warmup", {}, [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
    ("inverse_sqrt", {}, [0.0, 0.5, 1.0, 0.816497, 0.707107, 0.632456, 0.577350]),
    ("cosine_with_min_lr", {"min_lr": 0.1}, [0.0, 0.5, 1.0, 0.868198, 0.55, 0.231802, 0.1]),
    (
        "cosine_warmup_with_min_lr",
        {"min_lr_rate": 0.1},
        [0.5, 1.0, 0.868198, 0.55, 0.231802, 0.1, 0.231802],
    ),
    (
        "warmup_stable_decay",
        {"num_decay_steps": 2, "min_lr_ratio": 0.1},
        [0.1, 0.55, 1.0, 1.0, 1.0, 0.55, 0.1],
    ),
]

EVALUATES: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1}
PLATEAU: dict[str, Any] = {
    "lr_scheduler_type": "reduce_lr_on_plateau",
    "lr_scheduler_kwargs": {"patience": 0, "threshold": 0.1, "factor": 0.5},
    **EVALUATES,
}
GREEDY: dict[str, Any] = {
    "lr_scheduler_type": "greedy",
    "lr_scheduler_kwargs": {"patience": 1, "factor": 0.5, "min_lr": 1e-3, "smooth": True},
    **EVALUATES,
}


@pytest.mark.parametrize(("name", "kwargs", "expected"), EXPECTED)
def test_the_rates_are_those_of_transformers(
    tmp_path: Path, name: str, kwargs: dict[str, Any], expected: list[float]
) -> None:
    made = trainer(
        tmp_path,
        learning_rate=1.0,
        lr_scheduler_type=name,
        lr_scheduler_kwargs=kwargs,
        warmup_steps=2,
    )
    made.create_optimizer_and_scheduler(num_training_steps=6)
    rates = []
    for _ in range(7):
        rates += made.get_learning_rates()[:1]
        made.optimizer.step()
        made.lr_scheduler.step()
    assert rates == pytest.approx(expected, abs=1e-6)


def test_all_schedules_that_follow_no_metric_are_compared() -> None:
    of_steps = {name for name, made in SCHEDULES.items() if not isinstance(made, type)}
    assert {name for name, _, _ in EXPECTED} == of_steps


@pytest.mark.parametrize("name", ["cosine", "cosine_with_restarts", "polynomial"])
def test_a_warm_up_as_long_as_the_training_ends_without_an_error(tmp_path: Path, name: str) -> None:
    made = trainer(tmp_path, max_steps=3, warmup_steps=3, lr_scheduler_type=name)
    assert made.train().global_step == 3


@pytest.mark.parametrize(
    ("name", "kwargs", "named"),
    [
        ("linear", {"num_cycles": 2}, ["num_cycles", "none"]),
        ("constant", {"num_cycles": 2}, ["num_cycles", "none"]),
        ("cosine", {"num_cycle": 2}, ["num_cycle", "num_cycles"]),
        ("cosine", {"last_epoch": 3}, ["last_epoch", "num_cycles"]),
        ("polynomial", {"lr_end": 0.1, "end": 0}, ["'end'", "lr_end", "power"]),
        ("warmup_stable_decay", {}, ["num_decay_steps", "num_stable_steps", "min_lr_ratio"]),
        ("cosine_with_min_lr", {}, ["min_lr", "min_lr_rate"]),
        ("cosine_with_min_lr", {"min_lr": 0.1, "min_lr_rate": 0.1}, ["min_lr", "min_lr_rate"]),
        ("cosine_warmup_with_min_lr", {"num_cycles": 1}, ["min_lr", "warmup_lr_rate"]),
        ("reduce_lr_on_plateau", {"patient": 3}, ["patient", "patience", "factor"]),
        ("greedy", {"smoothing": True}, ["smoothing", "smooth", "window_size"]),
        ("cosine", {"num_cycles": "many"}, ["num_cycles", "many"]),
        ("cosine", {"num_cycles": None}, ["num_cycles", "None"]),
        ("cosine", {"num_cycles": float("nan")}, ["num_cycles", "nan"]),
        ("inverse_sqrt", {"timescale": 0}, ["timescale", "0"]),
        ("warmup_stable_decay", {"num_decay_steps": 0.1}, ["num_decay_steps", "0.1", "whole"]),
        ("polynomial", {"lr_end": -1}, ["lr_end", "-1"]),
        (
            "warmup_stable_decay",
            {"num_decay_steps": 2, "decay_type": "sqrt"},
            ["decay_type", "sqrt", "linear", "cosine", "1-sqrt"],
        ),
        ("cosine", "{num_cycles: 2}", ["lr_scheduler_kwargs", "JSON"]),
        ("cosine", "[2]", ["lr_scheduler_kwargs", "dict"]),
        ("cosine", 2, ["lr_scheduler_kwargs", "dict"]),
    ],
)
def test_a_wrong_or_missing_option_is_refused_with_the_names_that_there_are(
    name: str, kwargs: Any, named: list[str]
) -> None:
    with pytest.raises(ValueError, match="lr_scheduler_kwargs") as error:
        TrainingArguments(lr_scheduler_type=name, lr_scheduler_kwargs=kwargs, eval_strategy="epoch")
    assert [part for part in named if part not in str(error.value)] == []


def test_options_may_be_json() -> None:
    args = TrainingArguments(lr_scheduler_type="cosine", lr_scheduler_kwargs='{"num_cycles": 2}')
    assert args.lr_scheduler_kwargs == {"num_cycles": 2}
    assert json.loads(args.to_json_string())["lr_scheduler_kwargs"] == {"num_cycles": 2}


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_a_schedule_that_follows_a_metric_needs_evaluations(name: str) -> None:
    with pytest.raises(ValueError, match="eval_strategy"):
        TrainingArguments(lr_scheduler_type=name)
    args = TrainingArguments(lr_scheduler_type=name, eval_strategy="epoch")
    assert (args.metric_for_best_model, args.greater_is_better) == ("loss", False)


class Started(TrainerCallback):
    """Fails if the training begins."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("the training has begun")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lr_scheduler_type": "polynomial", "learning_rate": 1e-7}, "lr_end"),
        (
            {
                "lr_scheduler_type": "cosine_with_min_lr",
                "lr_scheduler_kwargs": {"min_lr": 0.1},
                "learning_rate": 0.0,
            },
            "learning rate",
        ),
        ({**PLATEAU, "lr_scheduler_kwargs": {"mode": "least"}}, "least"),
        ({**GREEDY, "lr_scheduler_kwargs": {"max_lr": [1.0]}}, "max_lr"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_first_step(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        trainer(tmp_path, Started, **changed).train()


def test_a_training_that_was_refused_can_be_repeated_with_other_options(tmp_path: Path) -> None:
    made = trainer(tmp_path, lr_scheduler_type="polynomial", learning_rate=1e-7)
    with pytest.raises(ValueError, match="lr_end"):
        made.train()
    made.args.learning_rate = 0.5
    made.train()
    assert logged(made, "learning_rate")[0] == 0.5


def test_a_plateau_lowers_the_rate_of_the_steps_after_it(tmp_path: Path) -> None:
    trained = trainer(tmp_path, max_steps=6, **PLATEAU)
    trained.train()
    rates = logged(trained, "learning_rate")
    assert rates[0] == 0.05
    assert rates[-1] < 0.05


@pytest.mark.parametrize("changed", [PLATEAU, GREEDY])
def test_schedules_that_follow_a_metric_resume_to_the_bit(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    def make(output_dir: Path) -> Trainer:
        return trainer(output_dir, **changed, **THREE_EPOCHS)

    assert_exact(tmp_path, make, 1, 4, 5, 11)


@pytest.mark.parametrize(
    ("name", "kwargs"), [(name, kwargs) for name, kwargs, _ in EXPECTED if kwargs]
)
def test_schedules_with_options_resume_to_the_bit(
    tmp_path: Path, name: str, kwargs: dict[str, Any]
) -> None:
    def make(output_dir: Path) -> Trainer:
        return trainer(
            output_dir,
            lr_scheduler_type=name,
            lr_scheduler_kwargs={**kwargs, **({"lr_end": 0.01} if "lr_end" in kwargs else {})},
            warmup_steps=3,
            **THREE_EPOCHS,
        )

    assert_exact(tmp_path, make, 1, 7)


def test_a_least_rate_stays_what_it_is_if_a_resumed_training_asks_for_another_rate(
    tmp_path: Path,
) -> None:
    """The checkpoint's learning rate holds, and the schedule must not scale by the new one."""
    changed: dict[str, Any] = {
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr": 0.01},
        **THREE_EPOCHS,
    }
    whole = trainer(tmp_path, learning_rate=0.05, **changed)
    whole.train()
    resumed = trainer(tmp_path / "resumed", learning_rate=0.5, **changed)
    resumed.train(tmp_path / "checkpoint-4")
    assert logged(resumed, "learning_rate") == logged(whole, "learning_rate")


def test_resuming_tells_which_options_of_a_schedule_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usual = {**THREE_EPOCHS, "max_steps": 3}
    cosine = {"lr_scheduler_type": "cosine", **usual}
    trainer(tmp_path / "cosine", lr_scheduler_kwargs={"num_cycles": 1}, **cosine).train()
    trainer(tmp_path / "plateau", **PLATEAU, **usual).train()
    caplog.clear()
    resumed = trainer(tmp_path / "cosine", lr_scheduler_kwargs={"num_cycles": 2}, **cosine)
    resumed.train(tmp_path / "cosine" / "checkpoint-2")
    [new] = warned(caplog)
    assert "lr_scheduler_kwargs" in new
    caplog.clear()
    resumed = trainer(
        tmp_path / "plateau", **{**PLATEAU, "lr_scheduler_kwargs": {"patience": 9}}, **usual
    )
    resumed.train(tmp_path / "plateau" / "checkpoint-2")
    [held] = warned(caplog)
    assert "lr_scheduler_kwargs" in held
    assert resumed.lr_scheduler.patience == 0


def test_a_checkpoint_of_another_kind_of_schedule_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, **PLATEAU, **{**THREE_EPOCHS, "max_steps": 2}).train()
    with pytest.raises(ValueError, match=r"ReduceLROnPlateau.*Schedule.*lr_scheduler_type"):
        trainer(tmp_path, **THREE_EPOCHS).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lr_scheduler_type": "constant", "warmup_steps": 2}, ["warmup_steps", "constant"]),
        ({**PLATEAU, "warmup_steps": 2}, ["warmup_steps", "reduce_lr_on_plateau"]),
        (
            {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 1, "num_stable_steps": 0},
                "max_steps": 3,
            },
            ["warmup_stable_decay", " 1 ", " 3", "min_lr_ratio"],
        ),
        (
            {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 5},
            },
            ["warmup_stable_decay", " 5 ", " 1"],
        ),
        ({**PLATEAU, "greater_is_better": True}, ["mode", "greater_is_better"]),
        ({**GREEDY, "lr_scheduler_kwargs": {"min_lr": 0.1}}, ["greedy", "min_lr", "0.1"]),
    ],
)
def test_what_a_schedule_does_not_do_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, Any], named: list[str]
) -> None:
    trained = trainer(tmp_path, **{"max_steps": 1, **changed})
    trained.train()
    trained.train()
    [warning] = warned(caplog)
    assert [part for part in named if part not in warning] == []


def greedy(**options: Any) -> tuple[SGD, GreedyLR]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    return optimizer, GreedyLR(optimizer, **{"patience": 1, "factor": 0.5, **options})


def follow(optimizer: SGD, schedule: GreedyLR, metrics: list[float]) -> list[float]:
    rates = []
    for metric in metrics:
        schedule.step(metric)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_greedy_raises_the_rate_while_the_metric_improves_and_lowers_it_otherwise() -> None:
    made = greedy(max_lr=0.3)
    assert follow(*made, [5, 4, 3, 2, 1]) == [0.1, 0.2, 0.2, 0.3, 0.3]
    assert follow(*made, [1, 1, 1, 1]) == [0.3, 0.15, 0.15, 0.075]


def test_greedy_begins_again_after_some_time_at_the_lowest_rate() -> None:
    made = greedy(patience=0, min_lr=0.05, reset_start=2)
    assert follow(*made, [5, 6, 7, 8]) == [0.2, 0.1, 0.05, 0.1]


def test_greedy_extends_to_groups_that_a_callback_adds() -> None:
    optimizer, schedule = greedy(patience=0)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "lr": 0.02})
    schedule.step(5.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.04]


def test_arguments_with_options_can_be_made_again_from_their_values(tmp_path: Path) -> None:
    args = arguments(tmp_path, **GREEDY)
    assert TrainingArguments(**args.to_dict()) == args
