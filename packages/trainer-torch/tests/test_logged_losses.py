"""Whatever a batch and an output look like: the logged losses are right, or it is refused."""

from __future__ import annotations

from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from small import arguments, logged
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from callback_core import TrainerCallback
from trainer_torch import Trainer

Sample = tuple[Tensor, Tensor, bool]
"""Features, a label, and whether the collator keeps the sample."""

EXTRAS: dict[str, Callable[[int], Any]] = {
    "temperature": lambda n: torch.tensor(0.5),
    "number": lambda n: 3,
    "text": lambda n: "text",
    "nothing": lambda n: None,
    "class_weights": lambda n: torch.ones(3),
    "edges": lambda n: torch.zeros(2, 11, dtype=torch.long),
    "time_first": lambda n: torch.zeros(7, n, 2),
    "array": lambda n: np.zeros((n, 2)),
    "mask": lambda n: torch.ones(n, 7, dtype=torch.bool),
    "texts": lambda n: ["a"] * n,
    "images": lambda n: [torch.zeros(3, 8, 8 + index) for index in range(n)],
    "boxes": lambda n: tuple({"boxes": torch.zeros(index, 4)} for index in range(n)),
    "sequences": lambda n: pack_sequence([torch.zeros(4 + n - index) for index in range(n)]),
    "nested": lambda n: {"parts": [torch.zeros(n, 2), torch.zeros(n)], "scale": torch.tensor(2.0)},
    "object": lambda n: SimpleNamespace(nodes=torch.zeros(17, 2)),
    "empty": lambda n: [],
}


def as_named_tuple(items: dict[str, Any]) -> Any:
    return namedtuple("Batch", list(items))(**items)


def as_data_class(items: dict[str, Any]) -> Any:
    return make_dataclass("Batch", list(items))(**items)


CONTAINERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "dict": dict,
    "OrderedDict": OrderedDict,
    "UserDict": UserDict,
    "tuple": lambda items: tuple(items.values()),
    "list": lambda items: list(items.values()),
    "named tuple": as_named_tuple,
    "data class": as_data_class,
    "object": lambda items: SimpleNamespace(**items),
}


def item(batch: Any, names: list[str], name: str) -> Any:
    if hasattr(batch, "keys"):
        return batch[name]
    if isinstance(batch, (tuple, list)):
        return batch[names.index(name)]
    return getattr(batch, name)


@dataclass
class Output:
    loss: Any = None
    logits: Any = None
    hidden_states: Any = None


NamedOutput = namedtuple("NamedOutput", ["logits", "loss"])
Positional = namedtuple("Positional", ["error", "scores"])

OUTPUTS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "loss": lambda loss, scores: loss,
    "tuple": lambda loss, scores: (loss, scores),
    "tuple of one": lambda loss, scores: (loss,),
    "list": lambda loss, scores: [loss, scores],
    "with none": lambda loss, scores: (loss, None, scores),
    "nested": lambda loss, scores: (loss, (scores, {"more": [scores]})),
    "dict": lambda loss, scores: {"logits": scores, "loss": loss},
    "of shape 1": lambda loss, scores: {"loss": loss.reshape(1), "logits": scores},
    "other losses": lambda loss, scores: {"aux_loss": 2 * loss, "loss": loss, "logits": scores},
    "scalars first": lambda loss, scores: {"temperature": 2 * loss, "loss": loss, "logits": scores},
    "cache": lambda loss, scores: OrderedDict(
        loss=loss, logits=scores, past_key_values=((scores, scores),)
    ),
    "object": lambda loss, scores: SimpleNamespace(loss=loss, scores=scores),
    "named tuple": lambda loss, scores: NamedOutput(scores, loss),
    "unnamed loss": lambda loss, scores: Positional(loss, scores),
    "data class": lambda loss, scores: Output(loss, scores, (scores, scores)),
    "double": lambda loss, scores: (loss.double(), scores),
}

REFUSED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "two losses": lambda loss, scores: {"loss": loss.expand(2), "logits": scores},
    "no loss": lambda loss, scores: {"logits": scores},
    "none": lambda loss, scores: None,
    "scores first": lambda loss, scores: (scores, loss),
    "number": lambda loss, scores: (loss.item(), scores),
    "text": lambda loss, scores: "0.5",
}
"""Outputs that cannot be trained on."""


class Stream(IterableDataset[Sample]):
    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


class Uneven(BatchSampler):
    """Batches of one, two, three, … samples."""

    def __iter__(self) -> Iterator[list[int]]:
        indices, size = list(self.sampler), 1
        while indices:
            yield indices[:size]
            indices, size = indices[size:], size + 1


@dataclass
class Case:
    """How a training is built.

    Attributes:
        container: The name of a container of a batch.
        names: The names of what is in a batch, in order.
        output: The name of an output.
        by_model: Whether the model returns the loss, rather than a `compute_loss`.
        samples: The number of samples.
        batch_size: The number of samples in a batch.
        loader: `usual`, `stream` or `uneven`.
        dropped: The samples that the collator leaves out.
        seed: The seed of the data.
    """

    container: str
    names: list[str]
    output: str
    by_model: bool
    samples: int
    batch_size: int
    loader: str
    dropped: set[int]
    seed: int

    def dataset(self) -> Any:
        generator = torch.Generator().manual_seed(self.seed)
        kept = [index not in self.dropped for index in range(self.samples)]
        samples = [
            (torch.randn(4, generator=generator), torch.randn((), generator=generator), keep)
            for keep in kept
        ]
        return Stream(samples) if self.loader == "stream" else samples

    def collate(self, samples: list[Sample]) -> Any:
        kept = [sample for sample in samples if sample[2]] or samples[:1]
        parts = {
            "features": torch.stack([sample[0] for sample in kept]),
            "labels": torch.stack([sample[1] for sample in kept]),
        }
        items = {
            name: parts[name] if name in parts else EXTRAS[name](len(kept)) for name in self.names
        }
        return CONTAINERS[self.container](items)

    def must_work(self) -> bool:
        """Whether there is no reason to refuse."""
        return self.output in OUTPUTS and self.loader == "usual" and not self.dropped


@st.composite
def cases(draw: st.DrawFn) -> Case:
    extras = draw(st.lists(st.sampled_from(sorted(EXTRAS)), unique=True, max_size=4))
    samples = draw(st.integers(1, 9))
    drops = draw(st.integers(0, 4)) == 0
    return Case(
        container=draw(st.sampled_from(sorted(CONTAINERS))),
        names=draw(st.permutations(["features", "labels", *extras])),
        output=draw(st.sampled_from([*OUTPUTS] * 4 + [*REFUSED])),
        by_model=draw(st.booleans()),
        samples=samples,
        batch_size=draw(st.integers(1, 5)),
        loader=draw(st.sampled_from(["usual"] * 4 + ["stream", "uneven"])),
        dropped=draw(st.sets(st.integers(0, samples - 1))) if drops else set(),
        seed=draw(st.integers(0, 1000)),
    )


class Scores(nn.Module):
    """Returns scores of shape (samples, 2), and notes the losses of all samples that it is given.

    Attributes:
        noted: The losses of the samples in each batch, until the end of an update step.
        steps: The loss of each update step, the mean over its samples.
    """

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.5, 0.5]))
        self.case = case
        self.noted: list[list[float]] = []
        self.steps: list[float] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        whole = self.case.container in ("data class", "object")
        return self.output(kwargs or (args[0] if whole else args))

    def output(self, batch: Any) -> Any:
        features, labels = (item(batch, self.case.names, name) for name in ("features", "labels"))
        scores = features[:, :2] * self.scale
        losses = (scores.sum(1) - labels) ** 2
        self.noted.append(losses.tolist())
        return {**OUTPUTS, **REFUSED}[self.case.output](losses.mean(), scores)


class EndsStep(TrainerCallback):
    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        model.steps.append(np.mean([loss for batch in model.noted for loss in batch]))
        model.noted.clear()


class Loaded(Trainer):
    """Has a loader of its own where the case says so."""

    case: Case

    def loader(self, dataset: Any, usual: Any) -> Any:
        if self.case.loader != "uneven":
            return usual(dataset)
        sampler = Uneven(SequentialSampler(dataset), 2, False)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=self.case.collate)

    def get_eval_dataloader(self, dataset: Any) -> Any:
        return self.loader(dataset, super().get_eval_dataloader)


def trainer_of(case: Case, out: Path) -> tuple[Any, Scores]:
    model: Any = Scores(case)
    args = arguments(
        out,
        max_steps=3,
        learning_rate=0.0,
        per_device_train_batch_size=case.batch_size,
        per_device_eval_batch_size=case.batch_size,
        gradient_accumulation_steps=1 + case.seed % 2,
    )
    Loaded.case = case
    made = Loaded(
        model,
        args,
        case.collate,
        case.dataset(),
        case.dataset(),
        compute_loss=None if case.by_model else lambda _, batch: model.output(batch),
        callbacks=[EndsStep],
    )
    return made, model


def logged_or_refused(name: str, run: Callable[[], Any]) -> Any:
    """Return what `run` returns, or `None` if it refuses with a sentence."""
    try:
        return run()
    except (ValueError, TypeError) as error:
        assert len(str(error)) > 40
        event(f"{name} refused")
        return None


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("losses")


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(case=cases())
def test_logged_losses_are_right_or_refused(out: Path, case: Case) -> None:
    made, model = trainer_of(case, out)
    evaluated = logged_or_refused("evaluation", made.evaluate)
    noted = [loss for batch in model.noted for loss in batch]
    if evaluated is not None and "eval_loss" in evaluated:
        assert evaluated["eval_loss"] == pytest.approx(np.mean(noted), rel=1e-6)
    assert evaluated is not None or not case.must_work()
    assert case.output not in OUTPUTS or evaluated is None or "eval_loss" in evaluated

    model.noted.clear()
    trained = logged_or_refused("training", made.train)
    assert (trained is not None) == (case.output in OUTPUTS)
    if trained is not None:
        assert logged(made, "loss") == pytest.approx(model.steps, rel=1e-6)
        assert trained.training_loss == pytest.approx(np.mean(model.steps), rel=1e-6)
