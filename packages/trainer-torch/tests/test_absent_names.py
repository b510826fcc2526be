"""What subclasses for transformers' Trainer use: it works, or says what to use instead."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from small import arguments, compute_loss, data, net, trainer
from torch import Tensor, nn

import trainer_torch
from trainer_torch import Trainer
from trainer_torch.methods.absent_names import ABSENT, NEVER_CALLED


@pytest.mark.parametrize(
    "name",
    [
        *("Trainer", "TrainingArguments", "TrainerCallback", "TrainerControl", "TrainerState"),
        *("EarlyStoppingCallback", "PrinterCallback", "ProgressCallback"),
        *("EvalPrediction", "IntervalStrategy", "set_seed"),
    ],
)
def test_what_scripts_import_from_transformers_can_be_imported_from_here(name: str) -> None:
    assert name in trainer_torch.__all__
    assert hasattr(trainer_torch, name)


class StepOfTransformers(Trainer):
    """Has a training step as it is written for transformers."""

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: int | None = None
    ) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        loss = loss / self.current_gradient_accumulation_steps
        self.accelerator.backward(loss)
        return loss.detach()


@pytest.mark.parametrize("precision", [{}, {"fp16": True}], ids=["float32", "float16"])
def test_a_training_step_of_transformers_trains_alike(
    tmp_path: Path, precision: dict[str, bool]
) -> None:
    changed: dict[str, Any] = {"gradient_accumulation_steps": 2, **precision}
    own = StepOfTransformers(
        net(),
        arguments(tmp_path / "own", **changed),
        train_dataset=data(),
        compute_loss=compute_loss,
    )
    usual = trainer(tmp_path / "usual", **changed)
    own.train()
    usual.train()
    for one, other in zip(own.model.parameters(), usual.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["is_main_process", "prepare", "unheard_of"])
def test_the_accelerator_names_what_it_lacks(tmp_path: Path, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        getattr(trainer(tmp_path).accelerator, name)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("tokenizer", "processing_class"), ("is_in_train", "training"), ("label_names", "args")],
)
def test_an_attribute_of_transformers_says_what_to_use(
    tmp_path: Path, name: str, instead: str
) -> None:
    with pytest.raises(AttributeError, match=f"'{name}'.*{instead}"):
        getattr(trainer(tmp_path), name)


def test_any_other_attribute_is_missing_as_usual(tmp_path: Path) -> None:
    some = trainer(tmp_path)
    with pytest.raises(AttributeError, match=r"'unheard_of'$"):
        _ = some.unheard_of  # type: ignore[attr-defined]
    assert not hasattr(some, "tokenizer")
    assert copy.copy(some).args is some.args


@pytest.mark.parametrize("name", ["_get_train_sampler", "_save", "prediction_loop"])
def test_an_override_that_nothing_calls_is_refused(tmp_path: Path, name: str) -> None:
    subclass = type("Own", (Trainer,), {name: lambda self, *args: None})
    with pytest.raises(TypeError, match=f"Own.*{name}"):
        subclass(net(), arguments(tmp_path))


@pytest.mark.parametrize("name", sorted({*ABSENT, *NEVER_CALLED}))
def test_what_is_listed_as_absent_is(tmp_path: Path, name: str) -> None:
    assert not hasattr(trainer(tmp_path), name)


def test_the_processing_class_is_that_of_the_callbacks(tmp_path: Path) -> None:
    some = trainer(tmp_path, given={"processing_class": "tokenizer"})
    assert some.processing_class == "tokenizer"
    some.processing_class = "other"
    assert some.callback_handler.processing_class == "other"
