"""Metrics computed batch by batch, by metrics with a state, and with more than predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import compute_loss, data, logged, net, trainer
from torch import Tensor, nn

from trainer_torch import EvalPrediction


class Accuracy:
    """A metric with a state, of the shape of torchmetrics'."""

    def __init__(self) -> None:
        self.resets, self.batches = 0, 0
        self.reset()

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        self.right += int((predictions.argmax(-1) == labels).sum())
        self.all += len(labels)
        self.batches += 1

    def compute(self) -> Tensor:
        return torch.tensor(self.right / self.all, dtype=torch.float64)

    def reset(self) -> None:
        self.right = self.all = 0
        self.resets += 1


def accuracy(evaluated: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((evaluated.predictions.argmax(-1) == evaluated.label_ids).mean())}


class ByBatch:
    """A function for `batch_eval_metrics`, which notes what it is called with."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.results: list[bool] = []
        self.accuracy = Accuracy()

    def __call__(self, evaluated: EvalPrediction, compute_result: bool) -> Any:
        self.seen.append(evaluated)
        self.results.append(compute_result)
        self.accuracy.update(*list(evaluated)[:2])
        if not compute_result:
            return None
        result = {"accuracy": self.accuracy.compute()}
        self.accuracy.reset()
        return result


def test_metrics_by_batch_are_those_of_all_samples(tmp_path: Path) -> None:
    by_batch = ByBatch()
    batches = {"per_device_eval_batch_size": 4, "batch_eval_metrics": True}
    made = trainer(tmp_path, given={"compute_metrics": by_batch}, **batches)
    whole = trainer(tmp_path, given={"compute_metrics": accuracy}).evaluate()
    assert made.evaluate()["eval_accuracy"] == whole["eval_accuracy"]
    assert [len(batch.label_ids) for batch in by_batch.seen] == [4, 4, 1]
    assert by_batch.results == [False, False, True]
    assert all(isinstance(part, Tensor) for batch in by_batch.seen for part in batch)


def test_a_metric_by_batch_can_decide_which_model_is_best(tmp_path: Path) -> None:
    best = {"metric_for_best_model": "accuracy", "eval_strategy": "epoch"}
    made = trainer(tmp_path, given={"compute_metrics": ByBatch()}, batch_eval_metrics=True, **best)
    made.train()
    assert made.state.best_metric == max(logged(made, "eval_accuracy"))


def test_predict_keeps_the_predictions_that_are_passed_on_by_batch(tmp_path: Path) -> None:
    by_batch, model = ByBatch(), net().eval()
    given = {"compute_metrics": by_batch, "model": model}
    output = trainer(
        tmp_path, given=given, batch_eval_metrics=True, per_device_eval_batch_size=4
    ).predict(data(9))
    features, labels = data(9)[:]
    np.testing.assert_allclose(output.predictions, model(features).detach().numpy(), atol=1e-6)
    np.testing.assert_array_equal(output.label_ids, labels.numpy())
    assert by_batch.results == [False, False, True]
    assert "test_accuracy" in output.metrics


def test_a_function_without_compute_result_is_refused_for_metrics_by_batch(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"compute_metrics.*compute_result"):
        trainer(tmp_path, given={"compute_metrics": accuracy}, batch_eval_metrics=True)


def test_labels_in_some_batches_only_are_refused_for_metrics_by_batch(tmp_path: Path) -> None:
    samples = [{"features": x, "labels": y} for x, y in zip(*data(8)[:], strict=True)]

    def collator(samples: list[Any]) -> Any:
        batch = torch.utils.data.default_collate(samples)
        return batch if len(samples) == 3 else {"features": batch["features"]}

    given = {
        "compute_metrics": ByBatch(),
        "data_collator": collator,
        "compute_loss": lambda model, batch: (model(batch["features"]).sum(),) * 2,
    }
    made = trainer(tmp_path, given=given, batch_eval_metrics=True, per_device_eval_batch_size=3)
    with pytest.raises(ValueError, match="2 of the first 3"):
        made.evaluate(samples)  # type: ignore[arg-type]


def test_a_metric_with_a_state_is_reset_for_each_evaluation(tmp_path: Path) -> None:
    metric = Accuracy()
    metric.update(torch.ones(1, 3), torch.ones(1))
    batches = {"per_device_eval_batch_size": 4}
    made = trainer(tmp_path, given={"compute_metrics": metric}, **batches)
    whole = trainer(tmp_path, given={"compute_metrics": accuracy}).evaluate()
    for _ in range(2):
        assert made.evaluate()["eval_Accuracy"] == whole["eval_accuracy"]
    assert metric.batches == 1 + 2 * 3


def test_a_metric_may_return_several_values_by_name(tmp_path: Path) -> None:
    class Both(Accuracy):
        def compute(self) -> Any:
            return {"right": torch.tensor(self.right), "all": torch.tensor([self.all])}

    metrics = trainer(tmp_path, given={"compute_metrics": Both()}).evaluate()
    assert metrics["eval_all"] == 9
    assert 0 <= metrics["eval_right"] <= 9


def test_a_class_of_metrics_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="class Accuracy"):
        trainer(tmp_path, given={"compute_metrics": Accuracy})


@pytest.mark.parametrize("by_batch", [False, True])
def test_logits_are_preprocessed_before_they_are_kept(tmp_path: Path, by_batch: bool) -> None:
    seen: list[Any] = []

    def metrics_of(evaluated: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        seen.extend(evaluated.predictions.tolist())
        return {}

    def best(logits: Tensor, labels: Tensor) -> Tensor:
        assert len(logits) == len(labels)
        return logits.argmax(-1)

    model = net().eval()
    given = {
        "model": model,
        "compute_metrics": metrics_of,
        "preprocess_logits_for_metrics": best,
    }
    made = trainer(tmp_path, given=given, batch_eval_metrics=by_batch)
    made.evaluate()
    assert seen == model(data(9)[:][0]).argmax(-1).tolist()
    assert made.predict(data(9)).predictions.tolist() == seen[:9]


@pytest.mark.parametrize("by_batch", [False, True])
def test_inputs_and_losses_are_included_for_metrics(tmp_path: Path, by_batch: bool) -> None:
    seen: list[EvalPrediction] = []

    def metrics_of(evaluated: EvalPrediction, compute_result: bool = True) -> dict[str, float]:
        seen.append(evaluated)
        return {}

    def loss(model: nn.Module, batch: Any) -> Any:
        return compute_loss(model, [batch["input_ids"], batch["labels"]])

    samples = [{"input_ids": x, "labels": y} for x, y in zip(*data(6)[:], strict=True)]
    given = {"compute_metrics": metrics_of, "compute_loss": loss, "eval_dataset": samples}
    metrics = trainer(
        tmp_path,
        given=given,
        include_for_metrics=["inputs", "loss"],
        batch_eval_metrics=by_batch,
        per_device_eval_batch_size=4,
    ).evaluate()
    unpacked = [tuple(evaluated) for evaluated in seen]
    _, _, inputs, losses = (np.concatenate(parts) for parts in zip(*unpacked, strict=True))
    np.testing.assert_array_equal(inputs, data(6)[:][0].numpy())
    assert losses.shape == (6,)
    assert len(set(losses.tolist())) == 2  # the mean loss of each batch
    assert losses.mean() == pytest.approx(metrics["eval_loss"])


def test_without_more_a_prediction_unpacks_into_two(tmp_path: Path) -> None:
    predictions, labels = evaluated = EvalPrediction(np.ones(2), np.zeros(2))
    assert evaluated[0] is predictions is evaluated.predictions
    assert evaluated[1] is labels is evaluated.label_ids
    assert (evaluated.inputs, evaluated.losses, len(evaluated)) == (None, None, 2)


def test_all_of_a_batch_is_included_if_it_has_no_main_input(tmp_path: Path) -> None:
    seen: list[Any] = []

    def metrics_of(evaluated: EvalPrediction) -> dict[str, float]:
        seen.append(evaluated.inputs)
        return {}

    made = trainer(tmp_path, given={"compute_metrics": metrics_of}, include_for_metrics=["inputs"])
    made.evaluate()
    assert [part.shape for part in seen[0]] == [(9, 4), (9,)]


def test_only_inputs_and_the_loss_can_be_included(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"include_for_metrics.*'losses'"):
        trainer(tmp_path, include_for_metrics=["losses"])


def test_predictions_may_stay_in_lists_of_batches(tmp_path: Path) -> None:
    made = trainer(tmp_path, eval_do_concat_batches=False, per_device_eval_batch_size=4)
    output = made.predict(data(9))
    assert [part.shape for part in output.predictions] == [(4, 3), (4, 3), (1, 3)]
    assert [part.shape for part in output.label_ids] == [(4,), (4,), (1,)]


def test_of_the_loss_only_there_are_no_predictions_and_no_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = trainer(tmp_path, given={"compute_metrics": accuracy}, prediction_loss_only=True)
    for metrics in (made.evaluate(), made.predict(data(9)).metrics):
        assert {name.split("_")[1] for name in metrics} == {"loss", "runtime", "samples", "steps"}
    output = made.predict(data(9))
    assert output.predictions is output.label_ids is None
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [("compute_metrics" in w, "prediction_loss_only" in w) for w in warned] == [(True, True)]


def test_a_metric_that_prediction_loss_only_prevents_cannot_decide(tmp_path: Path) -> None:
    made = trainer(
        tmp_path,
        given={"compute_metrics": accuracy},
        prediction_loss_only=True,
        metric_for_best_model="accuracy",
        eval_strategy="epoch",
    )
    with pytest.raises(ValueError, match="eval_accuracy"):
        made.train()


def test_what_has_no_effect_may_be_set(tmp_path: Path) -> None:
    changed = trainer(tmp_path, eval_accumulation_steps=2, eval_use_gather_object=True)
    assert changed.evaluate()["eval_loss"] == trainer(tmp_path).evaluate()["eval_loss"]
