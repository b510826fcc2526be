"""The averaged weights are evaluated, chosen, saved and resumed, and the raw ones are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP, StopAt, same, weights
from safetensors.torch import load_file
from small import Net, data, logged, net, trainer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from callback_core import TrainerCallback
from trainer_torch import Trainer, WeightAveragingCallback
from trainer_torch.callbacks.averaging import AVERAGE

SAVED: dict[str, Any] = {**EVERY_STEP}
EVALUATED: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1}


class Weights(TrainerCallback):
    """Notes the weights at the end of each step, in an evaluation and after it."""

    def __init__(self) -> None:
        self.raw: list[list[Tensor]] = []
        self.predicting: list[list[Tensor]] = []
        self.after: list[list[Tensor]] = []

    def _copy(self, model: Any) -> list[Tensor]:
        return [value.detach().clone() for value in model.state_dict().values()]

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        self.raw.append(self._copy(model))

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        self.predicting.append(self._copy(model))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        self.after.append(self._copy(model))


def ema(steps: list[list[Tensor]], decay: Any) -> list[list[Tensor]]:
    """Return the averages after each step, where `decay` is a function of the updates."""
    averages = [steps[0]]
    for count, step in enumerate(steps[1:], start=1):
        share = decay(count)
        pairs = zip(averages[-1], step, strict=True)
        averages.append([share * a + (1 - share) * b for a, b in pairs])
    return averages


@pytest.mark.parametrize(
    ("settings", "decay"),
    [
        ({"decay": 0.9, "warmup": False}, lambda count: 0.9),
        ({"decay": 0.3}, lambda count: min(0.3, (1 + count) / (10 + count))),
        ({"decay": None}, lambda count: count / (count + 1)),
    ],
)
def test_evaluations_use_the_average(tmp_path: Path, settings: Any, decay: Any) -> None:
    seen = Weights()
    trainer(
        tmp_path,
        WeightAveragingCallback(**settings),
        seen,
        per_device_eval_batch_size=9,
        **EVALUATED,
    ).train()
    for average, used in zip(ema(seen.raw, decay), seen.predicting, strict=True):
        for expected, found in zip(average, used, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert all(same(raw, after) for raw, after in zip(seen.raw, seen.after, strict=True))


def test_the_raw_weights_train_as_without_an_average(tmp_path: Path) -> None:
    plain, averaged = Weights(), Weights()
    trainer(tmp_path, plain, **EVALUATED).train()
    trainer(tmp_path, WeightAveragingCallback(), averaged, **EVALUATED).train()
    assert all(same(a, b) for a, b in zip(plain.raw, averaged.raw, strict=True))


def test_a_training_ends_with_the_average_that_save_model_writes(tmp_path: Path) -> None:
    seen = Weights()
    trained = trainer(tmp_path, WeightAveragingCallback(0.9, warmup=False), seen)
    trained.train()
    expected = ema(seen.raw, lambda count: 0.9)[-1]
    for found, value in zip(weights(trained), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)
    before = weights(trained)
    trained.evaluate()
    trained.save_model()
    loaded = net()
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert same([p.detach() for p in loaded.parameters()], before)


def test_torch_makes_the_same_average(tmp_path: Path) -> None:
    class Reference(TrainerCallback):
        model: Any = None

        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **kw: Any
        ) -> None:
            if self.model is None:
                averaging = get_ema_multi_avg_fn(0.9)
                self.model = AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
            self.model.update_parameters(model)

    reference = Reference()
    trained = trainer(tmp_path, WeightAveragingCallback(0.9, warmup=False), reference)
    trained.train()
    assert same(weights(trained), [p.detach() for p in reference.model.module.parameters()])


class Normed(nn.Module):
    """A network with the running statistics of a batch norm, and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight
        self.register_buffer("scale", torch.ones(4), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(self.second(self.norm(self.first(features)) * self.scale))


def normed(output_dir: Path, *callbacks: Any, dtype: Any = None, **changed: Any) -> Trainer:
    model = Normed() if dtype is None else Normed().to(dtype)
    samples = data()
    if dtype is not None:
        samples.tensors = (samples.tensors[0].to(dtype), samples.tensors[1])
    given = {"model": model, "callbacks": callbacks, "train_dataset": samples}
    return trainer(output_dir, given={**given, "eval_dataset": samples}, **changed)


@pytest.mark.parametrize("use_buffers", [True, False])
def test_running_statistics_are_averaged_or_those_of_the_training(
    tmp_path: Path, use_buffers: bool
) -> None:
    seen = Weights()
    averaging = WeightAveragingCallback(0.9, warmup=False, use_buffers=use_buffers)
    trained = normed(tmp_path, averaging, seen, per_device_eval_batch_size=20, **EVALUATED)
    trained.train()
    place = list(trained.model.state_dict()).index("norm.running_mean")
    count = list(trained.model.state_dict()).index("norm.num_batches_tracked")
    raw, used = seen.raw[-1][place], seen.predicting[-1][place]
    assert torch.equal(raw, used) is not use_buffers
    assert seen.predicting[-1][count] == seen.raw[-1][count] == 10
    assert same(seen.after[-1], seen.raw[-1])


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    "settings", [{}, {"decay": None, "update_strategy": "epoch"}, {"update_steps": 2}]
)
def test_a_training_with_an_average_resumes_to_the_bit(
    tmp_path: Path, settings: Any, dtype: Any
) -> None:
    usual = {**SAVED, **EVALUATED, "num_train_epochs": 3}

    def made(directory: Path, *callbacks: Any) -> Trainer:
        averaging = WeightAveragingCallback(**settings)
        return normed(directory, averaging, *callbacks, dtype=dtype, **usual)

    whole = made(tmp_path / "whole")
    whole.train()
    made(tmp_path, StopAt(7)).train()
    resumed = made(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert same(list(whole.model.state_dict().values()), list(resumed.model.state_dict().values()))
    for name in ("loss", "eval_loss"):
        assert logged(whole, name) == logged(resumed, name)
    last = load_file(tmp_path / "checkpoint-15" / AVERAGE)
    expected = load_file(tmp_path / "whole" / "checkpoint-15" / AVERAGE)
    assert all(torch.equal(value, expected[name]) for name, value in last.items())


def test_a_checkpoint_holds_both_and_a_model_can_load_the_average(tmp_path: Path) -> None:
    trained = normed(tmp_path, WeightAveragingCallback(), **SAVED)
    trained.train()
    loaded = Normed()
    loaded.load_state_dict(load_file(tmp_path / "checkpoint-10" / AVERAGE))
    assert same(list(loaded.state_dict().values()), list(trained.model.state_dict().values()))
    raw = load_file(tmp_path / "checkpoint-10" / "model.safetensors")
    assert not torch.equal(raw["last.weight"], loaded.last.weight)


@pytest.mark.parametrize("save_only_model", [False, True])
def test_the_best_model_is_the_best_average(tmp_path: Path, save_only_model: bool) -> None:
    seen = Weights()
    trained = trainer(
        tmp_path,
        WeightAveragingCallback(0.5, warmup=False),
        seen,
        load_best_model_at_end=True,
        save_only_model=save_only_model,
        learning_rate=1.0,
        per_device_eval_batch_size=9,
        **EVALUATED,
        **SAVED,
    )
    trained.train()
    step = trained.state.best_global_step
    assert step is not None
    assert same(weights(trained), seen.predicting[step - 1])
    assert trained.evaluate()["eval_loss"] == trained.state.best_metric


def test_evaluations_before_the_first_update_use_the_raw_weights(tmp_path: Path) -> None:
    seen = Weights()
    averaging = WeightAveragingCallback(start_step=4)
    trainer(tmp_path, averaging, seen, per_device_eval_batch_size=9, **EVALUATED).train()
    assert same(seen.predicting[2], seen.raw[2])
    assert not same(seen.predicting[4], seen.raw[4])


def test_a_second_training_begins_without_an_average(tmp_path: Path) -> None:
    trained = trainer(tmp_path, WeightAveragingCallback(), max_steps=3)
    trained.train()
    first = Weights()
    trained.add_callback(first)
    trained.args.eval_strategy, trained.args.eval_steps = "steps", 1
    trained.train()
    assert same(first.predicting[0], first.raw[0])


def test_a_checkpoint_without_an_average_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, StopAt(3), **SAVED).train()
    resumed = trainer(tmp_path, WeightAveragingCallback(), **SAVED)
    resumed.train(resume_from_checkpoint=True)
    assert sum("average" in one.getMessage() for one in caplog.records) == 1


def test_an_evaluation_that_does_not_use_the_average_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Own(Trainer):
        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            metrics = {"eval_loss": 1.0}
            self.run.fire(self.callback_handler.on_evaluate, metrics=metrics)
            return metrics

    trained = trainer(tmp_path, WeightAveragingCallback(), **EVALUATED)
    trained.__class__ = Own
    trained.train()
    assert sum("averaged" in one.getMessage() for one in caplog.records) == 1


def test_a_failed_training_keeps_its_raw_weights(tmp_path: Path) -> None:
    class Fails(Weights):
        def on_step_end(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            super().on_step_end(args, state, control, model, **kwargs)
            if state.global_step == 5:
                raise OSError("gone")

    seen = Fails()
    trained = trainer(tmp_path, WeightAveragingCallback(), seen)
    with pytest.raises(OSError, match="gone"):
        trained.train()
    trained.evaluate()
    assert same(seen.predicting[-1], seen.raw[-1])
    assert same(weights(trained), seen.raw[-1])
    assert isinstance(trained.model, Net)


@pytest.mark.parametrize(
    "settings",
    [{"decay": 1.0}, {"decay": "0.9"}, {"update_steps": 0}, {"update_strategy": "no"}],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        WeightAveragingCallback(**settings)
