"""Evaluation with transformers' signatures: datasets by name, and what a subclass overrides."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small import arguments, compute_loss, data, logged, net
from torch import nn
from torch.utils.data import DataLoader

from trainer_torch import EvalLoopOutput, EvalPrediction, Trainer


def accuracy(evaluated: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((evaluated.predictions.argmax(-1) == evaluated.label_ids).mean())}


def build(kind: type[Trainer], out: Path, given: Any = None, **changed: Any) -> Trainer:
    usual = {
        "train_dataset": data(),
        "eval_dataset": data(9),
        "compute_loss": compute_loss,
        "compute_metrics": accuracy,
    }
    return kind(net(), arguments(out, **changed), **{**usual, **(given or {})})


def test_a_dataset_of_the_trainer_is_evaluated_by_its_name(tmp_path: Path) -> None:
    made = build(Trainer, tmp_path, {"eval_dataset": {"near": data(4), "far": data(8)}})
    assert len(made.get_eval_dataloader("near").dataset) == 4  # type: ignore[arg-type]
    both = made.evaluate()
    assert made.evaluate("far")["eval_loss"] == both["eval_far_loss"]
    assert made.evaluate("near", metric_key_prefix="x")["x_loss"] == both["eval_near_loss"]


@pytest.mark.parametrize("datasets", [{"near": data(4), "far": data(8)}, data(4)])
def test_a_name_that_no_dataset_has_is_refused(tmp_path: Path, datasets: Any) -> None:
    made = build(Trainer, tmp_path, {"eval_dataset": datasets})
    names = "'near', 'far'" if isinstance(datasets, dict) else "eval_dataset"
    for call in (made.evaluate, made.get_eval_dataloader):
        with pytest.raises(ValueError, match=f"'middle'.*{names}"):
            call("middle")


def test_an_empty_mapping_of_datasets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        build(Trainer, tmp_path).evaluate({})


def test_the_loader_of_the_trainers_own_data_needs_no_argument(tmp_path: Path) -> None:
    made = build(Trainer, tmp_path)
    assert made.get_eval_dataloader().dataset is made.eval_dataset
    assert made.get_test_dataloader(made.train_dataset).dataset is made.train_dataset  # type: ignore[arg-type]


class OwnLoaders(Trainer):
    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        return DataLoader(data(4) if eval_dataset is None else eval_dataset, batch_size=2)

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        return DataLoader(data(2), batch_size=2)


def test_loaders_may_be_overridden_also_without_a_dataset(tmp_path: Path) -> None:
    made = build(OwnLoaders, tmp_path, {"eval_dataset": None})
    expected = build(Trainer, tmp_path).evaluate(data(4))
    assert made.evaluate()["eval_loss"] == pytest.approx(expected["eval_loss"])
    assert len(made.predict(data(9)).predictions) == 2


class OwnStep(Trainer):
    """Returns other predictions than the model."""

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: Any, ignore_keys: Any = None
    ) -> Any:
        loss, logits, labels = super().prediction_step(
            model, inputs, prediction_loss_only, ignore_keys
        )
        assert prediction_loss_only == (logits is None) == (labels is None)
        return loss, None if logits is None else nn.functional.one_hot(labels, 3), labels


def test_a_prediction_step_may_be_overridden(tmp_path: Path) -> None:
    assert build(OwnStep, tmp_path).evaluate()["eval_accuracy"] == 1.0
    assert "eval_loss" in build(OwnStep, tmp_path, {"compute_metrics": None}).evaluate()


class OwnEvaluate(Trainer):
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> Any:
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        return {**metrics, f"{metric_key_prefix}_extra": 0.5}


def test_an_evaluate_may_be_overridden_and_its_metrics_decide(tmp_path: Path) -> None:
    datasets = {"near": data(4), "far": data(8)}
    made = build(
        OwnEvaluate,
        tmp_path,
        {"eval_dataset": datasets, "compute_metrics": None},
        metric_for_best_model="far_extra",
        eval_strategy="epoch",
    )
    made.train()
    assert made.state.best_metric == 0.5
    assert {"eval_near_extra", "eval_far_extra"} <= set(made.evaluate())


class OwnLoop(Trainer):
    """Has an evaluation loop of its own, whose result has transformers' attributes."""

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: Any = None,
        ignore_keys: Any = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        labels = np.concatenate([batch[1] for batch in dataloader])
        metrics = {f"{metric_key_prefix}_largest": int(labels.max())}
        return SimpleNamespace(
            predictions=labels, label_ids=labels, metrics=metrics, num_samples=len(labels)
        )


def test_an_evaluation_loop_may_be_overridden(tmp_path: Path) -> None:
    made = build(OwnLoop, tmp_path, eval_strategy="epoch", metric_for_best_model="largest")
    made.train()
    assert logged(made, "eval_largest") == [2, 2]
    assert {"eval_runtime", "eval_samples_per_second"} <= set(made.evaluate())
    output = made.predict(data(5))
    assert output.predictions.tolist() == data(5)[:][1].tolist()
    assert output.metrics["test_largest"] == 2


class AddsToLoop(Trainer):
    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        assert isinstance(output, EvalLoopOutput)
        assert output.num_samples == 9
        return output._replace(metrics={**output.metrics, "eval_more": 1.0})


def test_an_evaluation_loop_may_be_extended(tmp_path: Path) -> None:
    assert build(AddsToLoop, tmp_path).evaluate()["eval_more"] == 1.0


class OldStep(Trainer):
    def prediction_step(self, batch: Any) -> Any:  # type: ignore[override]
        return None, None, None


class OldLoaders(Trainer):
    def get_eval_dataloader(self) -> Any:  # type: ignore[override]
        return None


class OldLoop(Trainer):
    def evaluation_loop(self, dataloader: Any) -> Any:  # type: ignore[override]
        return None


@pytest.mark.parametrize("kind", [OldStep, OldLoaders, OldLoop])
def test_an_override_with_other_parameters_is_refused_when_the_trainer_is_made(
    tmp_path: Path, kind: type[Trainer]
) -> None:
    (method,) = {"prediction_step", "get_eval_dataloader", "evaluation_loop"} & set(vars(kind))
    with pytest.raises(TypeError, match=f"{kind.__name__}.{method}"):
        build(kind, tmp_path)


def test_an_evaluate_without_parameters_is_refused_with_several_datasets_only(
    tmp_path: Path,
) -> None:
    class Bare(Trainer):
        def evaluate(self) -> Any:  # type: ignore[override]
            return super().evaluate()

    assert "eval_loss" in build(Bare, tmp_path).evaluate()
    with pytest.raises(TypeError, match=r"Bare\.evaluate"):
        build(Bare, tmp_path, {"eval_dataset": {"near": data(4), "far": data(8)}})


def test_a_generator_among_the_predictions_is_refused(tmp_path: Path) -> None:
    def compute(model: Any, batch: Any) -> Any:
        loss, scores = compute_loss(model, batch)
        return {"loss": loss, "logits": {"scores": (row for row in scores)}}

    with pytest.raises(ValueError, match="generator"):
        build(Trainer, tmp_path, {"compute_loss": compute}).evaluate()


def test_a_prediction_step_must_return_three_parts(tmp_path: Path) -> None:
    class Two(Trainer):
        def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
            return torch.ones(()), None

    with pytest.raises(ValueError, match=r"prediction_step.*of 2"):
        build(Two, tmp_path).evaluate()


class Named(nn.Module):
    """Returns scores and something else, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, features: Any, labels: Any = None) -> Any:
        scores = self.linear(features)
        loss = None if labels is None else nn.functional.cross_entropy(scores, labels)
        return {"loss": loss, "logits": scores, "embedding": features}


def named(samples: int, *without: str) -> Any:
    rows = [{"features": x, "labels": y} for x, y in zip(*data(samples)[:], strict=True)]
    return [{name: row[name] for name in row if name not in without} for row in rows]


def test_ignore_keys_for_eval_hold_in_the_evaluations_of_a_training(tmp_path: Path) -> None:
    shapes: list[Any] = []

    def keep(prediction: Any) -> dict[str, float]:
        shapes.append(np.shape(prediction.predictions))
        return {}

    made = Trainer(
        Named(),
        arguments(tmp_path, eval_strategy="epoch", eval_on_start=True),
        train_dataset=named(8),
        eval_dataset=named(9),
        compute_metrics=keep,
    )
    made.train(ignore_keys_for_eval=["embedding"])
    assert shapes == [(9, 3)] * 3


@pytest.mark.parametrize(
    "function", [None, lambda model, batch: model(**batch)], ids=["by model", "by compute_loss"]
)
def test_ignore_keys_name_outputs_that_are_not_predictions(tmp_path: Path, function: Any) -> None:
    given: dict[str, Any] = {"compute_metrics": accuracy, "compute_loss": function}
    made = Trainer(Named(), arguments(tmp_path), eval_dataset=named(9), **given)
    assert 0 <= made.evaluate(ignore_keys=["embedding"])["eval_accuracy"] <= 1
    assert made.predict(named(9), ["embedding"]).predictions.shape == (9, 3)
    made.compute_metrics = None
    several = made.predict(named(9)).predictions
    assert [part.shape for part in several] == [(9, 3), (9, 4)]
    assert several["logits"] is several[0]
    with pytest.raises(TypeError, match="'logits', 'embedding'"):
        np.argmax(several, -1)


class PopsLabels(Trainer):
    """Computes a loss as in transformers' documentation."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        scores = model(**inputs)["logits"]
        return nn.functional.cross_entropy(scores, labels), {"logits": scores}


def test_labels_may_be_taken_out_of_the_batch(tmp_path: Path) -> None:
    made = PopsLabels(Named(), arguments(tmp_path), eval_dataset=named(9), compute_metrics=accuracy)
    metrics = made.evaluate()
    assert {"eval_loss", "eval_accuracy"} <= set(metrics)


def loss_func(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    total = nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum")
    return total / num_items_in_batch


def test_a_loss_func_gets_the_number_of_items_in_the_batch(tmp_path: Path) -> None:
    args = arguments(tmp_path, per_device_eval_batch_size=4)
    torch.manual_seed(1)
    model = Named()
    made = Trainer(model, args, eval_dataset=named(9), compute_loss_func=loss_func)
    features, labels = data(9)[:]
    expected = nn.functional.cross_entropy(model.linear(features), labels).item()
    assert made.evaluate()["eval_loss"] == pytest.approx(expected)
    without = made.predict(named(6, "labels"))
    assert len(without.predictions) == 2
    assert "test_loss" not in without.metrics


def test_without_labels_a_loss_that_needs_them_is_left_out_of_a_prediction(tmp_path: Path) -> None:
    made = PopsLabels(Named(), arguments(tmp_path), eval_dataset=named(9))
    with_labels = made.predict(named(6))
    without = made.predict(named(6, "labels"), ignore_keys=["embedding"])
    np.testing.assert_allclose(without.predictions, with_labels.predictions)
    assert without.label_ids is None
    assert "test_loss" not in without.metrics
