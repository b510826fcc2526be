"""Schedules, decayed parameters and optimizers are those of transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from small_training import TRAINERS, TinyDataset, build
from torch import Tensor, nn
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

import trainer_torch

STEPS = 1000

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    ("cosine", {}),
    ("cosine", {"num_cycles": 1.75}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {}),
    ("polynomial", {"lr_end": 1e-4, "power": 2.5}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 70}),
    ("cosine_with_min_lr", {"min_lr": 1e-4}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.2, "num_cycles": 1.5}),
    ("cosine_warmup_with_min_lr", {"min_lr": 1e-4}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.2, "warmup_lr_rate": 0.05}),
    ("warmup_stable_decay", {"num_decay_steps": 300}),
    ("warmup_stable_decay", {"num_decay_steps": 200, "num_stable_steps": 500, "min_lr_ratio": 0.1}),
    *(
        (
            "warmup_stable_decay",
            {"num_decay_steps": 400, "warmup_type": shape, "decay_type": shape, "num_cycles": 0.7},
        )
        for shape in ("linear", "cosine", "1-sqrt")
    ),
]
"""Schedules that are functions of the step, with their options."""

OF_A_METRIC: list[tuple[str, dict[str, Any]]] = [
    ("reduce_lr_on_plateau", {}),
    ("reduce_lr_on_plateau", {"mode": "max", "factor": 0.5, "patience": 3, "min_lr": 1e-5}),
    ("greedy", {}),
    ("greedy", {"patience": 2, "factor": 0.8, "min_lr": 1e-4, "max_lr": 0.02, "reset_start": 5}),
    ("greedy", {"patience": 1, "smooth": True, "window_size": 7, "cooldown": 2, "warmup": 3}),
    ("greedy", {"mode": "max", "threshold_mode": "rel", "threshold": 0.01, "min_lr": 1e-4}),
]


def rates(trainer: str, output_dir: Path, name: str, kwargs: Any, warmup: float) -> list[float]:
    """Return the learning rates of `STEPS` + 1 steps."""
    follows_metric = (name, kwargs) in OF_A_METRIC
    changed = {"eval_strategy": "epoch"} if follows_metric else {}
    made = build(
        trainer,
        output_dir,
        lr_scheduler_type=name,
        lr_scheduler_kwargs=kwargs,
        warmup_steps=warmup,
        learning_rate=3e-3,
        **changed,
    )
    made.create_optimizer_and_scheduler(num_training_steps=STEPS)
    found = []
    for step in range(STEPS + 1):
        found.append(made.get_learning_rates()[0])
        made.optimizer.step()
        metric = [math.sin(step / 40) + 0.3 * math.cos(step)] if follows_metric else []
        made.lr_scheduler.step(*metric)
    return found


@pytest.mark.parametrize("warmup", [0, 1, 100, 0.25])
@pytest.mark.parametrize(("name", "kwargs"), OPTIONS + OF_A_METRIC)
def test_the_rates_of_a_thousand_steps_are_those_of_transformers(
    tmp_path: Path, name: str, kwargs: dict[str, Any], warmup: float
) -> None:
    theirs, ours = (rates(one, tmp_path, name, kwargs, warmup) for one in TRAINERS)
    difference = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    print(f"{name} {kwargs} warmup {warmup}: {difference:.1e}")
    assert difference <= 1e-12


def test_there_are_all_schedules() -> None:
    assert {name for name, _ in OPTIONS + OF_A_METRIC} == {one.value for one in SchedulerType}


@pytest.mark.parametrize("name", list(SchedulerType))
def test_a_member_of_transformers_enum_is_a_schedule(name: SchedulerType) -> None:
    kwargs = dict([*OPTIONS, *OF_A_METRIC])[name.value]
    args = trainer_torch.TrainingArguments(
        lr_scheduler_type=name, lr_scheduler_kwargs=kwargs, eval_strategy="epoch"
    )
    assert type(args.lr_scheduler_type) is str


class Block(nn.Module):
    """Modules and parameters whose names and classes decide whether they are decayed."""

    def __init__(self) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(4)
        self.ln_1 = nn.LayerNorm(4)
        self.norm = nn.BatchNorm1d(4)
        self.rms = nn.RMSNorm(4)
        self.normalized = nn.Linear(4, 4)
        self.LayerNormLike = nn.Linear(4, 4)
        self.bias_net = nn.Linear(4, 4)
        self.attention = nn.MultiheadAttention(4, 2)
        self.mlp = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 4, bias=False))
        self.scale = nn.Parameter(torch.ones(4))
        self.shared = self.mlp


class Nested(nn.Module):
    """A model with a shared module, tied weights and its own parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.again = self.blocks[0]
        self.head = nn.Linear(4, 8, bias=False)
        self.head.weight = self.embed.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.norm_f = nn.Linear(4, 4)
        self.bias = nn.Parameter(torch.zeros(2, 2))


@pytest.mark.parametrize("model", [Nested(), nn.LayerNorm(4), nn.Sequential(nn.LayerNorm(4))])
def test_the_same_parameters_are_decayed(tmp_path: Path, model: nn.Module) -> None:
    grouped = []
    for trainer in TRAINERS:
        made = build(trainer, tmp_path, weight_decay=0.1)
        made.model = model
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        made.create_optimizer()
        grouped.append(
            [
                (group["weight_decay"], [names[id(one)] for one in group["params"]])
                for group in made.optimizer.param_groups
            ]
        )
        assert set(made.get_decay_parameter_names(model)) >= set(grouped[-1][0][1])
    assert grouped[0] == grouped[1]


class Regression(nn.Module):
    """A network with matrices, biases and a norm, and a regression on two numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 1)
        )

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": nn.functional.mse_loss(self.layers(x), labels)}


def trained(trainer: str, output_dir: Path, **changed: Any) -> list[Tensor]:
    """Return the parameters after 20 steps on all data."""
    torch.manual_seed(0)
    made = build(
        trainer,
        output_dir,
        per_device_train_batch_size=10,
        max_steps=20,
        weight_decay=0.1,
        **{"learning_rate": 0.003, **changed},
    )
    chosen = TRAINERS[trainer]
    torch.manual_seed(0)
    fresh = chosen.Trainer(Regression(), made.args, train_dataset=TinyDataset(10))
    fresh.train()
    return [parameter.detach() for parameter in fresh.model.parameters()]


# torch multiplies the rate of Adafactor by the root mean square of a parameter if that is above 1,
# as it is for the norm in the model.
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"optim": "adamw_torch"},
        {"optim": OptimizerNames.ADAMW_TORCH_FUSED},
        {"optim": "sgd"},
        {"optim": "sgd", "optim_args": "momentum=0.9, nesterov=True"},
        {"optim": "adagrad", "optim_args": "lr_decay=0.01,eps=1e-8"},
        {"optim": "rmsprop", "optim_args": "momentum=0.5,centered=yes,alpha=0.9"},
        {"optim": "adafactor"},
    ],
)
def test_an_optimizer_trains_as_in_transformers(tmp_path: Path, changed: dict[str, Any]) -> None:
    theirs, ours = (trained(one, tmp_path, **changed) for one in TRAINERS)
    difference = max(
        float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True)
    )
    print(f"{changed}: {difference:.1e}")
    assert difference <= (1e-3 if changed.get("optim") == "adafactor" else 0)


def test_adafactor_trains_matrices_and_biases_as_in_transformers(tmp_path: Path) -> None:
    theirs, ours = (trained(one, tmp_path, optim="adafactor") for one in TRAINERS)
    named = zip(Regression().named_parameters(), ours, theirs, strict=True)
    differences = {name: float((one - other).abs().max()) for (name, _), one, other in named}
    assert max(value for name, value in differences.items() if name != "layers.1.weight") <= 1e-5


def test_the_default_optimizer_is_that_of_transformers() -> None:
    assert trainer_torch.TrainingArguments().optim == transformers.TrainingArguments().optim


@pytest.mark.parametrize("name", [one.value for one in OptimizerNames])
def test_each_optimizer_of_transformers_is_accepted_or_refused_by_what_to_pass(name: str) -> None:
    try:
        args = trainer_torch.TrainingArguments(optim=name)
    except ValueError as error:
        assert "optimizers=(optimizer, None)" in str(error)
        assert "must be one of" not in str(error)
    else:
        assert args.optim == name
