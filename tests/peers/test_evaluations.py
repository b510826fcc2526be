"""Evaluations and predictions of scripts for transformers are the same when the import changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import TRAINERS
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

LENGTHS = (3, 9, 2, 7, 5, 1, 8)


class Tagger(nn.Module):
    """Scores for each token, and a second output. It says how long its sequences are, if asked."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.scores = nn.Embedding(7, 8), nn.Linear(8, 7)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        hidden = self.embedding(input_ids)
        logits = self.scores(hidden)
        output = {"logits": logits, "mean": hidden.mean((1, 2))}
        if labels is None:
            return output
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, **output}


def rows(*without: str) -> list[dict[str, Tensor]]:
    """Return sequences of 10 tokens, of which only the first ones have a label."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for length in LENGTHS:
        tokens = torch.randint(0, 7, (10,), generator=generator)
        labels = tokens.where(torch.arange(10) < length, -100)
        row = {"input_ids": tokens, "labels": labels}
        found.append({name: row[name] for name in row if name not in without})
    return found


class Rows(Dataset[Any]):
    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, index: int) -> Any:
        return rows()[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(rows())


def shortened(samples: list[Any]) -> Any:
    """Return a batch that is as long as its longest sequence."""
    longest = max(int((sample["labels"] != -100).sum()) for sample in samples)
    return {name: torch.stack([s[name][:longest] for s in samples]) for name in samples[0]}


def build(trainer: str, out: Path, given: Any, **changed: Any) -> Any:
    chosen = TRAINERS[trainer]
    args = chosen.TrainingArguments(
        output_dir=str(out),
        per_device_eval_batch_size=3,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        **changed,
    )
    return chosen.Trainer(model=Tagger(), args=args, **{"eval_dataset": Rows(), **given})


def both(out: Path, code: Any, given: Any = None, **changed: Any) -> tuple[Any, Any]:
    """Return what `code` returns for either trainer."""
    theirs, ours = (
        code(build(name, out / name, given() if given else {}, **changed)) for name in TRAINERS
    )
    return theirs, ours


class Accuracy:
    """Counts right tokens over all calls until a result is asked for."""

    def __init__(self) -> None:
        self.right = self.all = 0
        self.parts: set[int] = set()

    def __call__(self, evaluated: Any, compute_result: bool = True) -> Any:
        self.parts.add(len(list(evaluated)))
        logits = evaluated.predictions
        logits = torch.as_tensor(logits[0] if isinstance(logits, tuple) else logits)
        labels = torch.as_tensor(evaluated.label_ids)
        self.right += int((logits.argmax(-1) == labels)[labels != -100].sum())
        self.all += int((labels != -100).sum())
        if not compute_result:
            return None
        result = {"accuracy": self.right / self.all, "parts": max(self.parts)}
        self.right = self.all = 0
        return result


def comparable(metrics: Any) -> dict[str, float]:
    speed = ("runtime", "per_second", "preparation_time", "epoch")
    return {name: value for name, value in metrics.items() if not name.endswith(speed)}


@pytest.mark.parametrize("dataset", [Rows(), Stream()], ids=["map", "stream"])
def test_the_loss_is_the_mean_over_samples_of_the_mean_over_tokens_in_each_batch(
    tmp_path: Path, dataset: Any
) -> None:
    theirs, ours = both(tmp_path, lambda made: made.evaluate(dataset)["eval_loss"])
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"batch_eval_metrics": True},
        {"include_for_metrics": ["inputs", "loss"]},
        {"eval_accumulation_steps": 1},
        {"eval_use_gather_object": True},
    ],
    ids=str,
)
def test_metrics_are_the_same(tmp_path: Path, changed: dict[str, Any]) -> None:
    given = lambda: {"compute_metrics": Accuracy(), "data_collator": shortened}  # noqa: E731
    theirs, ours = both(
        tmp_path, lambda made: [comparable(made.evaluate()) for _ in "12"], given, **changed
    )
    assert ours == [pytest.approx(metrics, rel=1e-6) for metrics in theirs]


def test_preprocessed_logits_are_the_same(tmp_path: Path) -> None:
    def given() -> Any:
        return {"preprocess_logits_for_metrics": lambda logits, labels: logits[0].argmax(-1)}

    theirs, ours = both(tmp_path, lambda made: made.predict(Rows()).predictions, given)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("ignored", [None, ["mean"]])
@pytest.mark.parametrize("without", [(), ("labels",)])
def test_predictions_have_the_same_form(
    tmp_path: Path, ignored: list[str] | None, without: tuple[str, ...]
) -> None:
    theirs, ours = both(tmp_path, lambda made: made.predict(rows(*without), ignore_keys=ignored))
    assert isinstance(ours.predictions, tuple) == isinstance(theirs.predictions, tuple)
    for own, expected in zip(ours.predictions, theirs.predictions, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-5)
    assert (ours.label_ids is None) == (theirs.label_ids is None)
    assert set(comparable(ours.metrics)) == set(comparable(theirs.metrics))


def test_ragged_predictions_are_padded_alike(tmp_path: Path) -> None:
    theirs, ours = both(
        tmp_path, lambda made: made.predict(Rows()), lambda: {"data_collator": shortened}
    )
    np.testing.assert_allclose(ours.predictions[0], theirs.predictions[0], rtol=1e-5)
    np.testing.assert_array_equal(ours.label_ids, theirs.label_ids)


def test_predictions_may_stay_in_lists_of_batches(tmp_path: Path) -> None:
    theirs, ours = both(
        tmp_path,
        lambda made: made.predict(Rows(), ignore_keys=["mean"]),
        lambda: {"data_collator": shortened},
        eval_do_concat_batches=False,
    )
    for own, expected in zip(ours.predictions, theirs.predictions, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-5)
    for own, expected in zip(ours.label_ids, theirs.label_ids, strict=True):
        np.testing.assert_array_equal(own, expected)


def test_only_the_loss_is_computed_on_request(tmp_path: Path) -> None:
    theirs, ours = both(
        tmp_path,
        lambda made: (comparable(made.evaluate()), made.predict(Rows()).predictions),
        lambda: {"compute_metrics": Accuracy()},
        prediction_loss_only=True,
    )
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert ours[1] is theirs[1] is None


def test_datasets_have_names(tmp_path: Path) -> None:
    def code(made: Any) -> Any:
        one = made.evaluate("far")
        return comparable(made.evaluate()), comparable(one), len(made.get_eval_dataloader("near"))

    datasets = {"near": rows()[:4], "far": rows()[4:]}
    theirs, ours = both(tmp_path, code, lambda: {"eval_dataset": datasets})
    for own, expected in zip(ours, theirs, strict=True):
        assert own == pytest.approx(expected, rel=1e-6)


def test_a_step_computes_the_loss_of_a_batch(tmp_path: Path) -> None:
    def code(made: Any) -> Any:
        batch = torch.utils.data.default_collate(rows())
        loss, logits, labels = made.prediction_step(made.model, batch, False, ["mean"])
        return [part.detach().numpy() for part in (loss, logits, labels)]

    theirs, ours = both(tmp_path, code)
    for own, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-6)
