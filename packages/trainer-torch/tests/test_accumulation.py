"""The gradient of an update step is that of one batch with all of its samples."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from small import arguments
from token_models import LENGTHS, Divides, Mean, Scores, gradients_of, sequences, token_losses
from torch import Tensor, nn

from trainer_torch import Trainer
from trainer_torch.data.accumulation import accepts_loss_kwargs, count_items


def loss_of_mean(model: nn.Module, batch: Any) -> Any:
    scores = model(batch["tokens"])
    return token_losses(scores, batch["labels"]), scores


def loss_of_sum(model: nn.Module, batch: Any, num_items_in_batch: int | None = None) -> Any:
    if num_items_in_batch is None:
        return loss_of_mean(model, batch)
    return token_losses(model(batch["tokens"]), batch["labels"], "sum") / num_items_in_batch


def loss_func(outputs: Any, labels: Any, num_items_in_batch: int | None = None) -> Tensor:
    if num_items_in_batch is None:
        return token_losses(outputs, labels)
    return token_losses(outputs, labels, "sum") / num_items_in_batch


class OfSubclass(Trainer):
    """Computes the mean loss, as a subclass of transformers' Trainer does."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        assert num_items_in_batch is None
        scores = model(inputs["tokens"])
        loss = token_losses(scores, inputs["labels"])
        return (loss, scores) if return_outputs else loss


class ScaledOfSubclass(Trainer):
    """Divides by the number of items."""

    loss_is_scaled_for_ga = True

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        return loss_of_sum(model, inputs, num_items_in_batch)


class WithoutItems(Trainer):
    """Overrides with the signatures of older versions of transformers."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
        return loss_of_mean(model, inputs)

    def training_step(self, model: Any, inputs: Any) -> Any:
        return super().training_step(model, inputs)


WAYS: dict[str, tuple[Any, type[Trainer]]] = {
    "mean of the model": (lambda: {"model": Mean()}, Trainer),
    "sum of the model": (lambda: {"model": Divides()}, Trainer),
    "mean": (lambda: {"model": Scores(), "compute_loss": loss_of_mean}, Trainer),
    "sum": (lambda: {"model": Scores(), "compute_loss": loss_of_sum}, Trainer),
    "compute_loss_func": (lambda: {"model": Scores(), "compute_loss_func": loss_func}, Trainer),
    "subclass": (lambda: {"model": Scores()}, OfSubclass),
    "scaled subclass": (lambda: {"model": Scores()}, ScaledOfSubclass),
    "older subclass": (lambda: {"model": Scores()}, WithoutItems),
    "model_init": (lambda: {"model_init": Mean}, Trainer),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("batch", "accumulation"), [(1, 4), (2, 2)])
def test_batches_of_padded_labels_give_the_gradient_and_loss_of_their_whole(
    tmp_path: Path, way: str, batch: int, accumulation: int
) -> None:
    make, kind = WAYS[way]
    whole = gradients_of(tmp_path, make, kind, per_device_train_batch_size=4)
    parts = gradients_of(
        tmp_path,
        make,
        kind,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )
    assert len(whole[0]) == len(parts[0]) == 3  # the last one is short
    for one, other in zip(whole[0], parts[0], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    assert parts[1] == pytest.approx(whole[1], rel=1e-6)


def test_a_group_of_batches_without_any_label_has_no_gradient(tmp_path: Path) -> None:
    make, kind = WAYS["mean of the model"]
    changed = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    gradients, losses = gradients_of(tmp_path, make, kind, lengths=(0, 0, 3, 2), **changed)
    assert losses[0] == 0.0
    assert all(not gradient.any() for gradient in gradients[0])
    assert all(gradient.isfinite().all() for gradient in gradients[1])


@dataclass
class Loss:
    """A function of the model and a batch that has no hash, because it can be compared."""

    weight: float

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        loss, scores = loss_of_mean(model, batch)
        return self.weight * loss, scores


def test_a_loss_may_be_an_object_without_a_hash(tmp_path: Path) -> None:
    once = gradients_of(tmp_path, lambda: {"model": Scores(), "compute_loss": Loss(1.0)})
    twice = gradients_of(tmp_path, lambda: {"model": Scores(), "compute_loss": Loss(2.0)})
    assert twice[1] == pytest.approx([2 * loss for loss in once[1]])


def test_a_loss_is_a_mean_where_the_number_of_items_is_unknown(tmp_path: Path) -> None:
    class Unknown(Trainer):
        def count_items(self, inputs: Any, size: int | None) -> int | None:
            return None

    changed = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    lengths = (3, 9, 4, 2)
    means = gradients_of(tmp_path, WAYS["mean"][0], Unknown, lengths, **changed)
    sums = gradients_of(tmp_path, WAYS["sum"][0], Unknown, lengths, **changed)
    assert sums[1] == pytest.approx(means[1])
    for one, other in zip(sums[0], means[0], strict=True):
        torch.testing.assert_close(one, other)


def test_samples_count_where_labels_are_not_whole_numbers() -> None:
    batch = [torch.zeros(3, 2), torch.zeros(3, 5)]
    assert count_items(batch, 3, None) == 3
    assert count_items({"pixels": torch.zeros(3, 2)}, 3, None) == 3
    assert count_items([torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64)], 3, None) == 3


def test_labels_that_a_causal_model_shifts_do_not_count_first() -> None:
    labels = torch.tensor([[1, 2, -100], [3, -100, -100]])
    assert count_items({"labels": labels}, 2, None, shifts_labels=True) == 1
    batch = {"labels": labels, "shift_labels": labels[:, 1:]}
    assert count_items(batch, 2, None, shifts_labels=True) == 1


def test_a_trainer_may_count_what_its_loss_is_a_mean_of(tmp_path: Path) -> None:
    class OverSequences(Trainer):
        def count_items(self, inputs: Any, size: int | None) -> int | None:
            counted.append(size)
            return size

    counted: list[int | None] = []
    changed = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    gradients_of(tmp_path, lambda: {"model": Mean()}, OverSequences, **changed)
    assert counted == [2, 2, 2, 2]  # a step with a single batch needs no count


@pytest.mark.parametrize(("kind", "accepts"), [(Mean, False), (Divides, True), (Scores, False)])
def test_a_model_gets_the_number_of_items_only_if_it_names_it(
    kind: type[nn.Module], accepts: bool
) -> None:
    model = kind()
    assert accepts_loss_kwargs(model) is accepts
    said = copy.deepcopy(model)
    said.accepts_loss_kwargs = not accepts  # type: ignore[assignment]
    assert accepts_loss_kwargs(said) is not accepts


def test_a_training_step_with_a_backward_of_its_own_knows_the_batches_of_its_step(
    tmp_path: Path,
) -> None:
    class Own(Trainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
            counts.append(self.current_gradient_accumulation_steps)
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
            loss = loss / self.current_gradient_accumulation_steps
            loss.backward()
            return loss.detach()

    counts: list[int] = []
    changed = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    gradients_of(tmp_path, lambda: {"model": Mean()}, Own, LENGTHS[:2] * 4, **changed)
    assert counts == [3, 3, 3, 1]


def test_outputs_of_compute_loss_are_those_of_the_model(tmp_path: Path) -> None:
    class Looks(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False) -> Any:
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
            seen.add(tuple(outputs))
            return (loss, outputs) if return_outputs else loss

    seen: set[Any] = set()
    gradients_of(tmp_path, lambda: {"model": Mean()}, Looks, max_steps=1)
    assert seen == {("loss", "logits")}


class OtherNames(Mean):
    """Takes labels of another name."""

    def forward(self, tokens: Tensor, targets: Tensor) -> Any:  # type: ignore[override]
        return super().forward(tokens, targets)


@pytest.mark.parametrize("names", [None, ["targets"]])
def test_token_losses_without_known_labels_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, names: Any
) -> None:
    renamed = [{"tokens": one["tokens"], "targets": one["labels"]} for one in sequences()]
    args = arguments(tmp_path, gradient_accumulation_steps=3, max_steps=3, label_names=names)
    Trainer(OtherNames(), args, train_dataset=renamed).train()  # type: ignore[arg-type]
    told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert ["label_names" in one for one in told] == [True] * (names is None)


class TakesNoModel(Trainer):
    def training_step(self, inputs: Any) -> Any:  # type: ignore[override]
        return None


class TakesMore(Trainer):
    def compute_loss(self, model: Any, inputs: Any, weights: Any) -> Any:  # type: ignore[override]
        return None


@pytest.mark.parametrize(
    ("kind", "method"), [(TakesNoModel, "training_step"), (TakesMore, "compute_loss")]
)
def test_an_override_that_cannot_be_called_is_refused_when_the_trainer_is_made(
    kind: type[Trainer], method: str
) -> None:
    with pytest.raises(TypeError, match=rf"{kind.__name__}.{method}"):
        kind(model=Mean())
