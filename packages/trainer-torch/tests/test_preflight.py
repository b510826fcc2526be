"""The check of a model before training finds what is wrong with it, and leaves nothing behind."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from small import data, trainer
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from callback_core import TrainerCallback


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def loss(self, features: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.layer(features), labels)


class InPlace(Base):
    """Changes running statistics and a moving average of its weights, and draws numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.average = nn.Parameter(torch.zeros(3, 4), requires_grad=False)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            self.average.lerp_(self.layer.weight, 0.5)
        return self.loss(self.drop(self.norm(features)), labels)


class Reassigned(Base):
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * features.mean(0)
        return self.loss(features - self.mean, labels)


class NotPersistent(Base):
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4), persistent=False)

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        self.mean.mul_(0.9).add_(0.1 * features.mean(0))
        return self.loss(features - self.mean, labels)


class Expanded(Base):
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(1).expand(4))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return self.loss(features - self.shift, labels)


class Counts(Base):
    def __init__(self) -> None:
        super().__init__()
        self.samples, self.seen = 0, {"steps": 0}

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        self.samples += len(features)
        self.seen["steps"] += 1
        return self.loss(features, labels)


class Renormalized(Base):
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        self.layer.weight.data = torch.renorm(self.layer.weight.data, 2, 0, 0.1)
        return self.loss(features, labels)


class Grows(Base):
    """Makes a buffer, a plain tensor and a module at its first call."""

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        if not hasattr(self, "scale"):
            self.scale = torch.ones(4)
            self.register_buffer("made", torch.ones(4))
            self.extra = nn.Identity()
        return self.loss(features * self.scale, labels)


def contents(model: nn.Module) -> dict[str, Any]:
    """Return all that a model holds, with its tensors as lists."""
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key != "_modules":
                items = value if isinstance(value, dict) else {"": value}
                found |= {
                    f"{name}.{key}.{item}": part.tolist()
                    if isinstance(part, Tensor)
                    else repr(part)
                    for item, part in items.items()
                }
    return found


class Stops(TrainerCallback):
    """Looks at the model before the first step."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}
        self.rng = torch.empty(0)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        self.seen, self.rng = contents(model), torch.get_rng_state()


KINDS = [InPlace, Reassigned, NotPersistent, Expanded, Counts, Renormalized, Grows]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_check_is_left_when_training_begins(tmp_path: Path, kind: Any) -> None:
    model, looks = kind(), Stops()
    before = contents(model.train())
    trainer(tmp_path, looks, given={"model": model, "compute_loss": None}).train()
    assert looks.seen == before
    torch.manual_seed(42)
    assert torch.equal(looks.rng, torch.get_rng_state())


def test_a_model_is_called_once_for_each_batch(tmp_path: Path) -> None:
    model = Counts()
    trainer(tmp_path, given={"model": model, "compute_loss": None}).train()
    assert (model.samples, model.seen) == (40, {"steps": 10})


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_resumed_training_ends_as_one_that_was_not_stopped(tmp_path: Path, kind: Any) -> None:
    def weights(name: str, *stops: int) -> Any:
        torch.manual_seed(1)
        model = kind()
        for max_steps in (*stops, 10):
            made = trainer(
                tmp_path / name,
                given={"model": model, "compute_loss": None},
                lr_scheduler_type="constant",
                max_steps=max_steps,
                save_strategy="steps",
                save_steps=5,
            )
            made.train(resume_from_checkpoint=max_steps == 10 and bool(stops))
        return model.layer.weight

    assert torch.equal(weights("whole"), weights("parts", 5))


class Log(Base):
    """Notes its calls outside of itself, where no copy can keep them apart."""

    calls: ClassVar[list[int]] = []

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        self.calls.append(len(features))
        return self.loss(features, labels)


def test_nothing_is_run_before_a_training_that_resumes(tmp_path: Path) -> None:
    def train(max_steps: int, resume: bool) -> None:
        Log.calls.clear()
        given = {"model": Log(), "compute_loss": None}
        made = trainer(tmp_path, given=given, save_strategy="epoch", max_steps=max_steps)
        made.train(resume_from_checkpoint=resume)

    train(5, resume=False)
    train(10, resume=True)
    assert Log.calls == [4] * 5


class HoldsALock(Base):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        with self.lock:
            return self.loss(features, labels)


def test_a_model_that_cannot_be_copied_is_trained_without_a_check(tmp_path: Path) -> None:
    made = trainer(tmp_path, given={"model": HoldsALock(), "compute_loss": None})
    assert made.train().global_step == 10


class PredictsInEvaluation(Base):
    def forward(self, features: Tensor, labels: Tensor) -> Any:
        loss = self.loss(features, labels)
        return loss if self.training else (loss, self.layer(features))


def test_predictions_may_come_in_evaluation_only(tmp_path: Path) -> None:
    given = {
        "model": PredictsInEvaluation(),
        "compute_loss": None,
        "compute_metrics": lambda evaluated: {"samples": len(evaluated.predictions)},
    }
    made = trainer(tmp_path, given=given, eval_strategy="epoch")
    made.train()
    assert made.evaluate()["eval_samples"] == 9


class Fails(Base):
    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        raise RuntimeError("shapes do not match")


def test_an_error_in_the_check_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes do not match") as error:
        trainer(tmp_path, given={"model": Fails(), "compute_loss": None}).train()
    assert any("train_dataset" in note for note in error.value.__notes__)


class CountsReads(torch.utils.data.Dataset[Any]):
    def __init__(self) -> None:
        self.processes: set[int] = set()

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        import os

        self.processes.add(os.getpid())
        return data()[index]


def test_a_dataset_that_workers_read_is_not_read_here(tmp_path: Path) -> None:
    dataset = CountsReads()
    given = {"model": Counts(), "compute_loss": None, "train_dataset": dataset}
    trainer(tmp_path, given=given, dataloader_num_workers=1, max_steps=1).train()
    assert dataset.processes == set()


class Once(IterableDataset[Any]):
    def __init__(self) -> None:
        self.left = iter(data())

    def __iter__(self) -> Any:
        return self.left


def test_data_that_can_be_read_once_is_not_read(tmp_path: Path) -> None:
    given = {"model": Counts(), "compute_loss": None, "train_dataset": Once()}
    assert trainer(tmp_path, given=given, max_steps=5).train().global_step == 5


class Weighted(Base):
    """Needs weights beside the features, so that a batch does not say how many samples it has."""

    def forward(self, features: Tensor, weights: Tensor) -> Any:
        return self.layer(features).square().mean() * weights.mean()


def weighted(samples: list[Any]) -> dict[str, Tensor]:
    features = torch.stack([features for features, _ in samples])
    return {"features": features, "weights": torch.ones(7)}


class Started(TrainerCallback):
    started = False

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        type(self).started = True


@pytest.mark.parametrize(
    ("model", "datasets", "collator", "error"),
    [
        (Weighted(), data(9), weighted, ValueError),
        (Weighted(), {"one": data(2), "more": data(9)}, weighted, ValueError),
        (Reassigned(), [{"other": torch.ones(4)}], None, TypeError),
    ],
    ids=["unknown size", "of the second", "other data"],
)
def test_an_evaluation_that_would_fail_is_found_before_training(
    tmp_path: Path, model: nn.Module, datasets: Any, collator: Any, error: type[Exception]
) -> None:
    Started.started = False
    given = {
        "model": model,
        "compute_loss": None,
        "data_collator": collator,
        "eval_dataset": datasets,
    }
    with pytest.raises(error) as raised:
        trainer(tmp_path, Started, given=given, eval_strategy="epoch").train()
    assert any("evaluation dataset" in note for note in raised.value.__notes__)
    assert not Started.started


def test_an_evaluation_of_one_batch_needs_no_number_of_samples(tmp_path: Path) -> None:
    given = {
        "model": Weighted(),
        "compute_loss": None,
        "data_collator": weighted,
        "eval_dataset": data(2),
    }
    made = trainer(tmp_path, given=given, eval_strategy="epoch")
    made.train()
    assert "eval_loss" in made.state.log_history[-2]
