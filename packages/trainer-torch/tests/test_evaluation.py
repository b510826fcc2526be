"""What evaluation and prediction return, log, and leave as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import compute_loss, data, logged, net, trainer
from torch import nn
from torch.utils.data import TensorDataset

from callback_core import TrainerCallback
from trainer_torch import EvalPrediction


def accuracy(evaluated: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((evaluated.predictions.argmax(-1) == evaluated.label_ids).mean())}


def test_the_loss_is_the_mean_over_samples_also_when_batches_differ_in_size(tmp_path: Path) -> None:
    model = net().eval()
    expected = compute_loss(model, list(data(9)[:]))[0].item()
    metrics = trainer(tmp_path, given={"model": model}, per_device_eval_batch_size=4).evaluate()
    assert metrics["eval_loss"] == pytest.approx(expected)


def test_metrics_are_computed_on_all_samples_in_their_order(tmp_path: Path) -> None:
    seen: list[EvalPrediction] = []

    def metrics_of(evaluated: EvalPrediction) -> dict[str, float]:
        seen.append(evaluated)
        return accuracy(evaluated)

    model = net().eval()
    evaluated = trainer(tmp_path, given={"model": model, "compute_metrics": metrics_of}).evaluate()
    features, labels = data(9)[:]
    np.testing.assert_allclose(seen[0].predictions, model(features).detach().numpy(), rtol=1e-5)
    np.testing.assert_array_equal(seen[0].label_ids, labels.numpy())
    assert evaluated["eval_accuracy"] == pytest.approx(
        (model(features).argmax(-1) == labels).double().mean().item()
    )


def test_an_evaluation_reports_its_speed(tmp_path: Path) -> None:
    metrics = trainer(tmp_path).evaluate()
    assert set(metrics) == {
        "eval_loss",
        "eval_runtime",
        "eval_samples_per_second",
        "eval_steps_per_second",
    }


def test_an_evaluation_is_logged_and_a_prediction_is_not(tmp_path: Path) -> None:
    evaluated = trainer(tmp_path)
    evaluated.evaluate()
    evaluated.predict(data(4))
    assert [set(entry) & {"eval_loss", "test_loss"} for entry in evaluated.state.log_history] == [
        {"eval_loss"}
    ]


def test_each_dataset_of_a_mapping_is_evaluated_under_its_name(tmp_path: Path) -> None:
    metrics = trainer(tmp_path).evaluate({"near": data(4), "far": data(8)})
    assert {"eval_near_loss", "eval_far_loss"} <= set(metrics)


def test_predictions_are_arrays_with_their_labels_and_metrics(tmp_path: Path) -> None:
    output = trainer(tmp_path, given={"compute_metrics": accuracy}).predict(
        data(6), metric_key_prefix="final"
    )
    assert output.predictions.shape == (6, 3)
    np.testing.assert_array_equal(output.label_ids, data(6)[:][1].numpy())
    assert {"final_loss", "final_accuracy"} <= set(output.metrics)


def test_predictions_may_have_a_structure_and_bfloat16_becomes_float32(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, features: Any) -> Any:
            return {
                "loss": features.mean() * self.scale,
                "sum": features.sum(1).bfloat16(),
                "parts": (features,),
            }

    dataset = TensorDataset(torch.ones(5, 4))
    given = {"model": Pair(), "compute_loss": None, "train_dataset": dataset}
    output = trainer(tmp_path, given=given, per_device_eval_batch_size=2).predict(dataset)
    assert output.predictions["sum"].dtype == np.float32
    np.testing.assert_array_equal(output.predictions["sum"], np.full(5, 4.0))
    assert output.predictions["parts"][0].shape == (5, 4)
    assert output.label_ids is None


def test_the_model_is_evaluated_without_dropout_and_each_module_gets_its_mode_back(
    tmp_path: Path,
) -> None:
    model = net()
    model.train()
    model.layers[0].eval()
    evaluated = trainer(tmp_path, given={"model": model})
    assert evaluated.evaluate()["eval_loss"] == evaluated.evaluate()["eval_loss"]
    assert [module.training for module in model.layers] == [False, True, True, True]


def test_evaluating_in_a_training_does_not_change_it(tmp_path: Path) -> None:
    without, within = trainer(tmp_path), trainer(tmp_path, eval_strategy="steps", eval_steps=1)
    without.train()
    within.train()
    assert logged(without, "loss") == logged(within, "loss")


def test_an_evaluation_in_a_training_has_its_epoch_and_one_before_has_none(tmp_path: Path) -> None:
    evaluated = trainer(tmp_path, eval_strategy="epoch")
    assert "epoch" not in evaluated.evaluate()
    evaluated.train()
    assert [entry["epoch"] for entry in evaluated.state.log_history if "eval_loss" in entry] == [
        1.0,
        2.0,
    ]


@pytest.mark.parametrize(
    "call", [lambda made: made.evaluate(data(0)), lambda made: made.predict(data(0))]
)
def test_an_empty_dataset_is_an_error(tmp_path: Path, call: Any) -> None:
    with pytest.raises(ValueError, match="empty"):
        call(trainer(tmp_path))


def test_a_metric_that_decides_but_is_not_reported_is_an_error_that_names_those_that_are(
    tmp_path: Path,
) -> None:
    made = trainer(
        tmp_path,
        eval_strategy="epoch",
        metric_for_best_model="f1",
        given={"compute_metrics": accuracy},
    )
    with pytest.raises(ValueError, match=r"'eval_f1'.* eval_accuracy, eval_loss"):
        made.train()


def test_callbacks_see_the_loader_that_is_evaluated(tmp_path: Path) -> None:
    class Sees(TrainerCallback):
        def on_prediction_step(
            self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kw: Any
        ) -> None:
            lengths.append(len(eval_dataloader))

    lengths: list[int] = []
    trainer(tmp_path, Sees, per_device_eval_batch_size=4).evaluate()
    assert lengths == [3, 3, 3]


def test_leaves_that_are_no_tensors_are_joined_too(tmp_path: Path) -> None:
    samples = [{"features": torch.ones(4), "labels": name} for name in "abcde"]
    given = {"compute_loss": lambda model, batch: (model(batch["features"]).sum(), None)}
    output = trainer(tmp_path, given=given, per_device_eval_batch_size=2).predict(samples)  # type: ignore[arg-type]
    assert output.label_ids == ["a", "b", "c", "d", "e"]
    assert output.predictions is None


@pytest.mark.parametrize("score", [np.float32(0.5), np.array([0.5]), torch.tensor(0.5)])
def test_metrics_of_numpy_and_torch_become_python_s_and_can_be_saved(
    tmp_path: Path, score: Any
) -> None:
    made = trainer(
        tmp_path,
        given={"compute_metrics": lambda evaluated: {"score": score}},
        eval_strategy="epoch",
        save_strategy="epoch",
    )
    made.train()
    assert [type(value) for value in logged(made, "eval_score")] == [float, float]


def test_a_metric_of_several_numbers_is_refused_by_name(tmp_path: Path) -> None:
    given = {"compute_metrics": lambda evaluated: {"scores": np.zeros(3)}}
    with pytest.raises(TypeError, match=r"scores .*\(3,\)"):
        trainer(tmp_path, given=given).evaluate()


def test_predicting_without_labels_computes_no_metrics_and_no_loss(tmp_path: Path) -> None:
    given = {
        "model": nn.Linear(4, 1),
        "compute_loss": lambda model, batch: (model(batch[0]),),
        "compute_metrics": accuracy,
    }
    output = trainer(tmp_path, given=given).predict(TensorDataset(torch.ones(1, 4)))
    assert output.predictions.shape == (1, 1)
    assert not {"test_loss", "test_accuracy"} & set(output.metrics)
