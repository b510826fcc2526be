"""Which items of samples that are mappings are passed to the model, and under which names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from small import arguments
from torch import Tensor, nn

from trainer_torch import Trainer


class Regression(nn.Module):
    """Returns the loss of a linear layer: x (batch, 2), labels (batch)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.seen: list[dict[str, Tensor]] = []

    def forward(self, x: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor] | Tensor:
        scores = self.layer(x).squeeze(1)
        if labels is None:
            return scores
        return nn.functional.mse_loss(scores, labels), scores


class Anything(Regression):
    """Takes whatever is in a batch, and keeps the names of it."""

    names: tuple[str, ...] = ()

    def forward(self, x: Tensor, labels: Tensor | None = None, **more: Any) -> Any:
        self.names = tuple(more)
        return super().forward(x, labels)


def samples(**more: Any) -> list[dict[str, Any]]:
    return [{"x": [float(i), 1.0], "label": 0.5 * i, **more} for i in range(8)]


def trainer(tmp_path: Path, data: Any, model: nn.Module, /, **parts: Any) -> Trainer:
    own = {name: parts.pop(name) for name in ("compute_loss", "compute_loss_func") if name in parts}
    return Trainer(
        model, arguments(tmp_path, **parts), train_dataset=data, eval_dataset=data, **own
    )


def first_batch(made: Trainer) -> Any:
    return next(iter(made.get_train_dataloader()))


def test_lists_and_numbers_of_python_become_tensors_as_in_transformers(tmp_path: Path) -> None:
    batch = first_batch(trainer(tmp_path, samples(), Regression()))
    assert batch["x"].shape == (4, 2) and batch["x"].dtype == torch.float32
    assert batch["labels"].shape == (4,) and batch["labels"].dtype == torch.float32


def test_labels_of_classes_stay_whole_numbers(tmp_path: Path) -> None:
    data = [{"x": [1.0, 2.0], "label": i} for i in range(4)]
    assert first_batch(trainer(tmp_path, data, Regression()))["labels"].dtype == torch.int64


def test_a_label_is_called_labels_where_forward_calls_it_so(tmp_path: Path) -> None:
    made = trainer(tmp_path, samples(), Regression())
    made.train()
    assert made.evaluate()["eval_loss"] > 0


@pytest.mark.parametrize("name", ["label", "label_ids"])
def test_a_name_that_forward_takes_is_kept(name: str, tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor, labels: Any = None, label: Any = None, label_ids: Any = None):
            return self.weight * x.sum()

    data = [{"x": 1.0, name: 2.0}] * 4
    assert set(first_batch(trainer(tmp_path, data, Own()))) == {"x", name}


def test_a_column_that_forward_does_not_take_is_left_out_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(tmp_path, samples(text="a"), Regression(), eval_strategy="epoch")
    with caplog.at_level(logging.WARNING):
        made.train()
    told = [one for one in caplog.records if one.name == "trainer_torch.data.collating"]
    assert len(told) == 1
    assert "text" in told[0].getMessage()


def test_columns_are_kept_if_they_are_asked_for(tmp_path: Path) -> None:
    made = trainer(tmp_path, samples(z=1), Regression(), remove_unused_columns=False)
    with pytest.raises(TypeError, match="'z'"):
        made.train()


def test_a_forward_that_takes_anything_gets_everything(tmp_path: Path) -> None:
    model = Anything()
    trainer(tmp_path, samples(z=1), model).train()
    assert model.names == ("z",)


def test_a_compute_loss_gets_the_columns_as_they_are(tmp_path: Path) -> None:
    seen: list[set[str]] = []

    def compute_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        seen.append(set(batch))
        return model(batch["x"], batch["label"])[0]

    trainer(tmp_path, samples(z=1), Regression(), compute_loss=compute_loss).train()
    assert seen[0] == {"x", "label", "z"}


def test_a_compute_loss_func_gets_the_labels(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        seen.append(tuple(labels.shape))
        return ((outputs - labels) ** 2).mean()

    trainer(tmp_path, samples(z=1), Regression(), compute_loss_func=loss).train()
    assert seen[0] == (4,)


def test_other_samples_are_collated_as_by_torch(tmp_path: Path) -> None:
    data = [(torch.ones(2), 1.5)] * 4
    batch = first_batch(trainer(tmp_path, data, Regression()))
    assert batch[1].dtype == torch.float64


def test_workers_make_the_same_batches(tmp_path: Path) -> None:
    alone = first_batch(trainer(tmp_path, samples(text="a"), Regression()))
    made = trainer(tmp_path, samples(text="a"), Regression(), dataloader_num_workers=1)
    shared = first_batch(made)
    assert {name: value.tolist() for name, value in shared.items()} == {
        name: value.tolist() for name, value in alone.items()
    }


def test_a_model_whose_forward_takes_none_of_the_columns_is_told_of_all(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'other'"):
        trainer(tmp_path, [{"other": 1.0}] * 8, nn.Linear(1, 1)).train()
