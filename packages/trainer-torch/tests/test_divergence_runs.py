"""Many short trainings, each with a step that is not finite: good weights survive, also kills."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small import arguments, compute_loss, data, net
from torch import Tensor

from callback_core import TrainerCallback
from trainer_torch import Trainer
from trainer_torch.model.weights import MODEL
from trainer_torch.storage.checkpoint import has_finite_weights, list_checkpoints

pytestmark = pytest.mark.slow

POLICIES = ("warn", "skip", "stop", "rollback")
SPOILS = ("gradient", "loss", "batch")
STEPS = 12
NAN = float("nan")


class Spoilt(Trainer):
    """Spoils one step."""

    spoilt = 0
    how = "loss"

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        is_spoilt = self.state.global_step + 1 == self.spoilt
        if is_spoilt and self.how == "batch":
            inputs = [inputs[0] * NAN, inputs[1]]
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss * NAN if is_spoilt and self.how == "loss" else loss


class SpoilsGradients(TrainerCallback):
    """Spoils the gradient of one of two batches of the step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            next(kwargs["model"].parameters()).grad[0, 0] = random.choice([NAN, float("inf")])


class Kills(TrainerCallback):
    """Kills the process at one of its events."""

    def __init__(self, at: int) -> None:
        self.left = at

    def count(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    on_step_begin = on_optimizer_step = on_step_end = on_log = on_save = count


def made(out: Path, number: int, *callbacks: Any) -> Spoilt:
    """Return a trainer whose policy, spoilt step and rhythm follow from `number`."""
    draws = random.Random(number)
    step, how = draws.randint(3, STEPS), draws.choice(SPOILS)
    args = arguments(
        out,
        max_steps=STEPS,
        on_non_finite=POLICIES[number % 4],
        gradient_accumulation_steps=2,
        per_device_train_batch_size=2,
        logging_steps=draws.choice([1, 2, 5]),
        save_strategy="steps",
        save_steps=draws.choice([1, 2]),
        save_total_limit=draws.choice([1, 2, 3]),
    )
    spoils = [SpoilsGradients(step)] if how == "gradient" else []
    trainer = Spoilt(
        net(), args, None, data(), compute_loss=compute_loss, callbacks=[*spoils, *callbacks]
    )
    trainer.spoilt, trainer.how = step, how
    return trainer


def newest_finite(out: Path) -> dict[str, Tensor] | None:
    """Return the weights of the newest checkpoint that says it is finite, if they are."""
    said = [one for one in list_checkpoints(out) if has_finite_weights(one)]
    weights = load_file(said[-1] / MODEL) if said else {}
    are_finite = all(bool(torch.isfinite(one).all()) for one in weights.values())
    return weights if said and are_finite else None


def test_all_of_a_hundred_spoilt_trainings_keep_a_finite_checkpoint_to_resume_from(
    tmp_path: Path,
) -> None:
    kept = 0
    for number in range(100):
        out = tmp_path / str(number)
        made(out, number).train()
        weights = newest_finite(out)
        resumed = made(out, number)
        resumed.spoilt = 0
        resumed.train(resume_from_checkpoint=True)
        limit = resumed.args.save_total_limit
        are_few = len(list_checkpoints(out)) <= (limit or 0) + 1
        kept += weights is not None and are_few and newest_finite(out) is not None
    assert kept == 100


def train_until_killed(out: Path, number: int, at: int) -> None:
    has_checkpoint = bool(list_checkpoints(out))
    made(out, number, Kills(at)).train(resume_from_checkpoint=has_checkpoint)


@pytest.mark.parametrize("number", range(12))
def test_a_training_that_is_killed_again_and_again_ends_the_same(
    tmp_path: Path, number: int
) -> None:
    whole = made(tmp_path / "whole", number)
    whole.train()
    draws, kills = random.Random(number), 0
    for most in (8, 30, 30, 30):
        child = multiprocessing.get_context("fork").Process(
            target=train_until_killed, args=(tmp_path / "killed", number, draws.randint(0, most))
        )
        child.start()
        child.join(120)
        kills += child.exitcode == -signal.SIGKILL
    assert kills > 0
    last = made(tmp_path / "killed", number)
    last.train(resume_from_checkpoint=bool(list_checkpoints(tmp_path / "killed")))
    assert last.state.global_step == whole.state.global_step
    weights = [made.model.state_dict().values() for made in (whole, last)]
    for one, other in zip(*weights, strict=True):
        assert torch.equal(one.nan_to_num(7), other.nan_to_num(7))
