"""Evaluations are right, or refused, whatever batches, outputs and metrics look like."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from small import arguments, compute_loss, data, logged, net, trainer
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from trainer_torch import EvalPrediction, Trainer


def accuracy(evaluated: EvalPrediction) -> dict[str, float]:
    chosen = np.argmax(evaluated.predictions, -1)
    return {"accuracy": float((chosen == evaluated.label_ids).mean())}


class Batch(NamedTuple):
    features: torch.Tensor
    labels: torch.Tensor


@pytest.mark.parametrize(
    "collate",
    [
        lambda x, y: {"temperature": torch.tensor(2.0), "features": x, "labels": y},
        lambda x, y: {"class_weights": torch.ones(3), "features": x, "labels": y},
        lambda x, y: {"time_first": torch.zeros(7, len(y), 2), "features": x, "labels": y},
        lambda x, y: {"names": ["a"] * len(y), "features": x, "labels": y},
        lambda x, y: {"images": [torch.zeros(3, 8, n) for n in y], "features": x, "labels": y},
        lambda x, y: SimpleNamespace(features=x, labels=y),
        lambda x, y: Batch(x, y),
    ],
    ids=["number", "weights", "time", "texts", "images", "object", "named tuple"],
)
def test_the_loss_is_weighted_by_samples_whatever_else_is_in_a_batch(
    tmp_path: Path, collate: Any
) -> None:
    def collator(samples: list[Any]) -> Any:
        return collate(*(torch.stack(part) for part in zip(*samples, strict=True)))

    def loss(model: nn.Module, batch: Any) -> Any:
        if isinstance(batch, dict):
            batch = SimpleNamespace(**batch)
        return compute_loss(model, [batch.features, batch.labels])

    model = net().eval()
    expected = compute_loss(model, list(data(9)[:]))[0].item()
    given = {"model": model, "compute_loss": loss, "data_collator": collator}
    metrics = trainer(tmp_path, given=given, per_device_eval_batch_size=4).evaluate()
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-6)


def test_losses_of_few_digits_are_averaged_in_many(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: Any) -> Any:
        return model(batch[0]).sum() * 0 + torch.tensor(1.0078125, dtype=torch.bfloat16)

    given = {"compute_loss": lambda model, batch: loss(model, batch).bfloat16()}
    metrics = trainer(tmp_path, given=given, per_device_eval_batch_size=2).evaluate(data(63))
    assert metrics["eval_loss"] == 1.0078125


class Frames(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([{"weights": torch.ones(3), "x": torch.ones(n, 4)} for n in (2, 1)])


def test_a_loss_that_cannot_be_weighted_is_an_error_that_says_what_to_override(
    tmp_path: Path,
) -> None:
    class Loaded(Trainer):
        def get_eval_dataloader(self, dataset: Any) -> Any:
            return DataLoader(dataset, batch_size=None)

    class Counted(Loaded):
        def get_batch_size(self, batch: Any, loaded: int | None) -> int | None:
            return len(batch["x"])

    def loss(model: nn.Module, batch: Any) -> Any:
        return torch.tensor(float(len(batch["x"])))

    for kind in (Loaded, Counted):
        made = kind(net(), arguments(tmp_path), eval_dataset=Frames(), compute_loss=loss)
        if kind is Counted:
            assert made.evaluate()["eval_loss"] == pytest.approx(5 / 3)
        else:
            with pytest.raises(ValueError, match=r"'weights', 'x'.*get_batch_size"):
                made.evaluate()


def test_a_loss_in_some_batches_only_is_an_error(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: Any) -> Any:
        scores = model(batch[0])
        return (scores.mean(), scores) if len(scores) == 4 else (scores,)

    made = trainer(tmp_path, given={"compute_loss": loss}, per_device_eval_batch_size=4)
    with pytest.raises(ValueError, match=r"2 of 3"):
        made.evaluate()


def test_a_prediction_step_must_return_one_loss(tmp_path: Path) -> None:
    class Steps(Trainer):
        def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
            return torch.ones(4), None, None

    with pytest.raises(ValueError, match=r"prediction_step.*\(4,\)"):
        Steps(net(), arguments(tmp_path), eval_dataset=data(4)).evaluate()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_rate_of_samples_that_cannot_be_counted_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def loss(model: nn.Module, batch: Any) -> Any:
        return model(batch["x"]).mean()

    class Loaded(Trainer):
        def get_train_dataloader(self) -> Any:
            return DataLoader(Frames(), batch_size=None)

    args = arguments(tmp_path, max_steps=2)
    trained = Loaded(net(), args, train_dataset=Frames(), compute_loss=loss).train()
    assert not [name for name in trained.metrics if "samples" in name]
    assert "train_steps_per_second" in trained.metrics
    assert [warning for warning in warnings(caplog) if "get_batch_size" in warning]


@pytest.mark.parametrize("output", [None, (None, None), {"logits": torch.ones(9)}])
def test_an_evaluation_without_a_loss_is_warned_about_once(
    tmp_path: Path, output: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(tmp_path, given={"compute_loss": lambda model, batch: output})
    made.predict(data(9))
    assert not warnings(caplog)
    assert "eval_loss" not in made.evaluate() | made.evaluate()
    (warning,) = warnings(caplog)
    assert "loss" in warning


def named(samples: int = 9) -> Any:
    features, labels = data(samples)[:]
    return [{"features": x, "target": y} for x, y in zip(features, labels, strict=True)]


def named_loss(model: nn.Module, batch: Any) -> Any:
    return compute_loss(model, [batch["features"], batch["target"]])


def test_metrics_that_are_not_computed_for_want_of_labels_are_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"compute_loss": named_loss, "compute_metrics": accuracy, "eval_dataset": named()}
    made = trainer(tmp_path, given=given)
    made.evaluate()
    made.evaluate()
    (warning,) = warnings(caplog)
    assert all(name in warning for name in ("'features'", "'target'", "label_names"))


def test_label_names_name_the_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    given = {"compute_loss": named_loss, "compute_metrics": accuracy, "eval_dataset": named()}
    metrics = trainer(tmp_path, given=given, label_names=["target"]).evaluate()
    assert 0 <= metrics["eval_accuracy"] <= 1
    assert not warnings(caplog)


def test_several_label_names_give_a_tuple(tmp_path: Path) -> None:
    given = {"compute_loss": named_loss, "train_dataset": named()}
    made = trainer(tmp_path, given=given, label_names=["target", "features"])
    labels = made.predict(named(9)).label_ids
    assert [part.shape for part in labels] == [(9,), (9, 4)]


def test_the_predictions_of_a_language_model_are_its_logits(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: Any) -> Any:
        loss, scores = compute_loss(model, batch)
        cache = [(scores[:, None], scores[:, None])]
        return {"loss": loss, "logits": scores, "past_key_values": cache}

    given = {"compute_loss": loss, "compute_metrics": accuracy}
    plain = trainer(tmp_path, given={"compute_metrics": accuracy}).evaluate()
    assert trainer(tmp_path, given=given).evaluate()["eval_accuracy"] == plain["eval_accuracy"]


def test_several_predictions_are_not_compared_with_the_same_labels_by_mistake(
    tmp_path: Path,
) -> None:
    """Hidden states beside scores of the same shape would make an accuracy of both."""

    def with_hidden_states(model: nn.Module, batch: Any) -> Any:
        loss, scores = compute_loss(model, batch)
        return loss, scores, -scores

    given = {"compute_loss": with_hidden_states}
    with pytest.raises(TypeError, match="2 predictions"):
        trainer(tmp_path, given={**given, "compute_metrics": accuracy}).evaluate()

    def of_the_first(evaluated: EvalPrediction) -> dict[str, float]:
        assert isinstance(evaluated.predictions, tuple)
        return accuracy(EvalPrediction(evaluated.predictions[0], evaluated.label_ids))

    first = trainer(tmp_path, given={**given, "compute_metrics": of_the_first}).evaluate()
    alone = trainer(tmp_path, given={"compute_metrics": accuracy}).evaluate()
    assert first["eval_accuracy"] == alone["eval_accuracy"]


def test_a_dict_for_each_sample_becomes_one_list_of_all_samples(tmp_path: Path) -> None:
    def collator(samples: list[Any]) -> Any:
        return {
            "images": [torch.ones(3, 8, 8 + index) for index, _ in enumerate(samples)],
            "labels": [{"boxes": torch.ones(int(label), 4)} for _, label in samples],
        }

    def loss(model: nn.Module, batch: Any) -> Any:
        found = [{"scores": torch.ones(len(label["boxes"]))} for label in batch["labels"]]
        return torch.tensor(0.5), found

    for samples in (6, 8):
        given = {"compute_loss": loss, "data_collator": collator}
        made = trainer(tmp_path, given=given, per_device_eval_batch_size=4)
        output = made.predict(data(samples))
        boxes = [len(label["boxes"]) for label in output.label_ids]
        assert boxes == data(samples)[:][1].tolist()
        assert boxes == [len(prediction["scores"]) for prediction in output.predictions]


def test_batches_that_a_collator_pads_by_themselves_are_padded_to_the_longest(
    tmp_path: Path,
) -> None:
    lengths = [3, 1, 2, 5, 4]
    samples = [{"tokens": torch.ones(n), "labels": torch.full((n,), n)} for n in lengths]

    def collator(samples: list[Any]) -> Any:
        return {
            name: pad_sequence([sample[name] for sample in samples], True, -100)
            for name in ("tokens", "labels")
        }

    def loss(model: nn.Module, batch: Any) -> Any:
        return torch.tensor(0.5), batch["tokens"][..., None]

    seen: list[EvalPrediction] = []

    def metrics_of(evaluated: EvalPrediction) -> dict[str, float]:
        seen.append(evaluated)
        return {"tokens": float((evaluated.label_ids != -100).sum())}

    given = {
        "data_collator": collator,
        "compute_loss": loss,
        "compute_metrics": metrics_of,
        "eval_dataset": samples,
    }
    metrics = trainer(tmp_path, given=given, per_device_eval_batch_size=2).evaluate()
    assert metrics["eval_tokens"] == sum(lengths)
    assert seen[0].predictions.shape == (5, 5, 1)
    assert seen[0].label_ids.shape == (5, 5)
    assert [int((row != -100).sum()) for row in seen[0].label_ids] == lengths


@pytest.mark.parametrize("name", ["f1", "eval_f1"])
def test_a_metric_may_have_the_prefix_already_and_decide_which_model_is_best(
    tmp_path: Path, name: str
) -> None:
    given = {"compute_metrics": lambda evaluated: {name: 0.5}}
    made = trainer(tmp_path, given=given, eval_strategy="epoch", metric_for_best_model=name)
    made.train()
    assert logged(made, "eval_f1") == [0.5, 0.5]
    assert made.state.best_metric == 0.5
    predicted = made.predict(data(4), metric_key_prefix="test").metrics
    assert f"test_{name}" in predicted


def test_a_metric_with_the_prefix_has_it_once_for_each_of_several_datasets(tmp_path: Path) -> None:
    given = {"compute_metrics": lambda evaluated: {"eval_f1": 0.5, "recall": 0.5}}
    metrics = trainer(tmp_path, given=given).evaluate({"near": data(4), "far": data(4)})
    names = {f"eval_{name}_{metric}" for name in ("near", "far") for metric in ("f1", "recall")}
    assert names <= set(metrics)
    assert not [name for name in metrics if "eval_f1" in name]


@pytest.mark.parametrize(
    ("returned", "error"),
    [
        (None, TypeError),
        (0.5, TypeError),
        ([("f1", 0.5)], TypeError),
        ({"f1": 0.5, "eval_f1": 0.6}, ValueError),
    ],
)
def test_what_compute_metrics_returns_must_be_metrics_by_name(
    tmp_path: Path, returned: Any, error: Any
) -> None:
    given = {"compute_metrics": lambda evaluated: returned}
    with pytest.raises(error, match="compute_metrics"):
        trainer(tmp_path, given=given).evaluate()
