"""Our trainer resumes from transformers' checkpoints, and transformers' trainer from ours."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_training import build
from torch import Tensor, nn

import trainer_torch

OTHER = {"transformers": "ours", "ours": "transformers"}
EVERY_STEP = {"save_strategy": "steps", "save_steps": 1}


class Normed(nn.Module):
    """Weights of every kind: transformers decays `scale` and the batch norm, and ours does not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.batch, self.layer = nn.Linear(2, 4), nn.BatchNorm1d(4), nn.LayerNorm(4)
        self.scale = nn.Parameter(torch.ones(4))
        self.out = nn.Linear(4, 1)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.out(self.layer(self.batch(self.linear(x))) * self.scale)
        return {"loss": nn.functional.mse_loss(logits, labels), "logits": logits}


def whole_batch(trainer: str, out: Path, **changed: Any) -> Any:
    """Return a trainer whose batches are all alike, so that the order of the data is no matter."""
    usual = {"per_device_train_batch_size": 10, "num_train_epochs": 6, "weight_decay": 0.1}
    return build(trainer, out, **{**usual, "learning_rate": 0.05, **EVERY_STEP, **changed})


def with_model(made: Any, model: nn.Module) -> Any:
    """Return `made` with another model, before it trains."""
    return type(made)(model, made.args, None, made.train_dataset, made.eval_dataset)


def weights(made: Any) -> dict[str, Tensor]:
    return {name: one.detach() for name, one in made.model.state_dict().items()}


def losses(made: Any) -> list[float]:
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


@pytest.mark.parametrize("first", OTHER)
@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_a_training_that_changes_trainers_ends_as_if_it_had_not(
    first: str, kind: str, tmp_path: Path
) -> None:
    whole = whole_batch(first, tmp_path / "whole", lr_scheduler_type=kind)
    whole.train()
    second = whole_batch(OTHER[first], tmp_path / "second", lr_scheduler_type=kind)
    second.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert second.state.global_step == 6
    assert losses(second) == pytest.approx(losses(whole), rel=1e-5)
    for name, weight in weights(second).items():
        torch.testing.assert_close(weight, weights(whole)[name])


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 7])
def test_the_position_is_where_transformers_would_go_on(
    batch: int, accumulation: int, step: int, tmp_path: Path
) -> None:
    sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}
    first = build("transformers", tmp_path, **sizes, **EVERY_STEP)
    first.train()
    if not (tmp_path / f"checkpoint-{step}").exists():
        return
    resumed = build("ours", tmp_path / "ours", **sizes)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert resumed.state.global_step == first.state.global_step
    curves = [
        [(one["step"], one["epoch"], one["learning_rate"]) for one in made.state.log_history[:-1]]
        for made in (first, resumed)
    ]
    assert curves[1] == [pytest.approx(point) for point in curves[0]]


def test_groups_that_differ_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = with_model(whole_batch("transformers", tmp_path / "first"), Normed())
    first.train()
    second = with_model(whole_batch("ours", tmp_path / "second"), Normed())
    second.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-2"))
    for name, weight in weights(second).items():
        torch.testing.assert_close(weight, weights(first)[name])


def test_groups_that_fit_no_model_are_refused(tmp_path: Path) -> None:
    model = Normed()
    first = whole_batch("transformers", tmp_path / "first")
    groups = [{"params": [one]} for one in model.parameters()]
    first = type(first)(
        model, first.args, None, first.train_dataset, optimizers=(torch.optim.AdamW(groups), None)
    )
    first.train()
    second = with_model(whole_batch("ours", tmp_path / "second"), Normed())
    with pytest.raises(ValueError, match="group"):
        second.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-2"))


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"lr_scheduler_type": "reduce_lr_on_plateau"}, "lr_scheduler"), ({"optim": "sgd"}, "SGD")],
)
def test_another_optimizer_or_schedule_is_refused(
    changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    plateau = "lr_scheduler_type" in changed
    extra = {"eval_strategy": "steps", "eval_steps": 1, "metric_for_best_model": "loss"}
    whole_batch("transformers", tmp_path, **changed, **(extra if plateau else {})).train()
    resumed = whole_batch("ours", tmp_path / "ours")
    with pytest.raises(ValueError, match=r"lr_scheduler|another optimizer"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def older(checkpoint: Path) -> None:
    """Rewrite a checkpoint of transformers as 4.34 wrote it."""
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    torch.save(torch.amp.GradScaler("cpu").state_dict(), checkpoint / "scaler.pt")
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    for name in ("best_global_step", "stateful_callbacks", "train_batch_size", "logging_steps"):
        state.pop(name)
    (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    schedule = torch.load(checkpoint / "scheduler.pt", weights_only=True)
    schedule["verbose"] = False
    torch.save(schedule, checkpoint / "scheduler.pt")
    generators = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
    }
    torch.save(generators, checkpoint / "rng_state.pth")


def test_a_checkpoint_of_4_34_is_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = whole_batch("transformers", tmp_path / "first")
    first.train()
    older(tmp_path / "first" / "checkpoint-2")
    second = whole_batch("ours", tmp_path / "second")
    second.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-2"))
    for name, weight in weights(second).items():
        torch.testing.assert_close(weight, weights(first)[name])
    told = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert any("training_args.bin" in one and "scaler" in one for one in told)


def test_the_arguments_of_a_checkpoint_are_not_unpickled(tmp_path: Path) -> None:
    whole_batch("transformers", tmp_path).train()
    (tmp_path / "checkpoint-2" / "training_args.bin").write_bytes(b"not a pickle")
    resumed = whole_batch("ours", tmp_path / "ours")
    assert resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2")).global_step == 6


@pytest.mark.parametrize("missing", ["optimizer.pt", "scheduler.pt", "model.safetensors"])
def test_what_a_checkpoint_lacks_is_named(missing: str, tmp_path: Path) -> None:
    whole_batch("transformers", tmp_path).train()
    (tmp_path / "checkpoint-2" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        whole_batch("ours", tmp_path / "o").train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-2")
        )


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    first = whole_batch("transformers", tmp_path / "first")
    first.train()
    checkpoint = tmp_path / "first" / "checkpoint-2"
    saved = load_file(checkpoint / "model.safetensors")
    places = {name: f"model-{number}.safetensors" for number, name in enumerate(saved)}
    for name, place in places.items():
        save_file({name: saved[name]}, checkpoint / place, {"format": "pt"})
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (checkpoint / "model.safetensors").unlink()
    second = whole_batch("ours", tmp_path / "second")
    second.train(resume_from_checkpoint=str(checkpoint))
    for name, weight in weights(second).items():
        torch.testing.assert_close(weight, weights(first)[name])


def test_the_newest_of_transformers_checkpoints_in_a_folder_is_found(tmp_path: Path) -> None:
    whole_batch("transformers", tmp_path, num_train_epochs=3).train()
    resumed = whole_batch("ours", tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.run.resumed_from == tmp_path / "checkpoint-3"
    assert isinstance(resumed, trainer_torch.Trainer)


@pytest.mark.parametrize("trainer", OTHER)
def test_best_saves_at_the_same_steps(trainer: str, tmp_path: Path) -> None:
    made = build(
        trainer,
        tmp_path,
        scores=(0.1, 0.3, 0.2, 0.4, 0.4, 0.1, 0.5, 0.2, 0.1, 0.6),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="best",
        metric_for_best_model="score",
        greater_is_better=True,
    )
    made.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == sorted(
        f"checkpoint-{step}" for step in (1, 2, 4, 7, 10)
    )
    assert Path(made.state.best_model_checkpoint).name == "checkpoint-10"


@pytest.mark.parametrize("debug", ["", "underflow_overflow"])
def test_debug_has_the_same_values(debug: str, tmp_path: Path) -> None:
    theirs = transformers.TrainingArguments(str(tmp_path), debug=debug).debug
    ours = trainer_torch.TrainingArguments(str(tmp_path), debug=debug).debug
    assert ours == [option.value for option in theirs]


def test_only_the_model_is_saved_in_the_files_of_transformers(tmp_path: Path) -> None:
    names = {}
    for trainer in OTHER:
        whole_batch(trainer, tmp_path / trainer, save_only_model=True).train()
        names[trainer] = {one.name for one in (tmp_path / trainer / "checkpoint-1").iterdir()}
    assert names["ours"] - {"manifest.json"} == names["transformers"] - {"training_args.bin"}
