"""The numbers of a training, against a loop written by hand, and what callbacks see of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small import compute_loss, data, logged, net, trainer
from torch import Tensor, nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR
from torch.utils.data import IterableDataset

from callback_core import TrainerCallback, TrainerControl

SEED = 42


def losses_by_hand(accumulate: int, epochs: int, max_norm: float) -> list[float]:
    """Return the loss of each update step of a training written without the trainer."""
    dataset, model, losses = data(), net(), []
    steps_in_epoch = math.ceil(5 / accumulate)
    optimizer = AdamW(model.parameters(), lr=0.05, weight_decay=0.0, fused=True)
    total = epochs * steps_in_epoch
    schedule = LambdaLR(optimizer, lambda step: (total - step) / total)
    torch.manual_seed(SEED)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(SEED + epoch))
        batches = order.split(4)
        for begin in range(0, len(batches), accumulate):
            group = batches[begin : begin + accumulate]
            step_loss = 0.0
            for batch in group:
                loss, _ = compute_loss(model, list(dataset[batch]))
                (loss / len(group)).backward()
                step_loss += loss.item() / len(group)
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(step_loss)
    return losses


class Losses(TrainerCallback):
    """Keeps the losses that the events pass."""

    def __init__(self) -> None:
        self.of_substeps: list[Tensor] = []
        self.of_steps: list[Tensor] = []

    def on_substep_end(
        self, args: Any, state: Any, control: Any, loss: Any = None, **kwargs: Any
    ) -> None:
        self.of_substeps.append(loss)

    def on_step_end(
        self, args: Any, state: Any, control: Any, loss: Any = None, **kwargs: Any
    ) -> None:
        self.of_steps.append(loss)


@pytest.mark.parametrize("accumulate", [1, 2, 3, 7])
def test_the_loss_curve_is_that_of_a_hand_written_loop(tmp_path: Path, accumulate: int) -> None:
    trained = trainer(tmp_path, gradient_accumulation_steps=accumulate, max_grad_norm=0.5)
    output = trained.train()
    expected = losses_by_hand(accumulate, epochs=2, max_norm=0.5)
    assert logged(trained, "loss") == pytest.approx(expected, rel=1e-6)
    assert output.training_loss == pytest.approx(sum(expected) / len(expected), rel=1e-6)


def test_a_log_of_several_steps_is_their_mean(tmp_path: Path) -> None:
    trained = trainer(tmp_path, logging_steps=4)
    trained.train()
    expected = losses_by_hand(1, epochs=2, max_norm=1.0)
    assert logged(trained, "loss") == pytest.approx(
        [sum(expected[:4]) / 4, sum(expected[4:8]) / 4, sum(expected[8:]) / 2], rel=1e-6
    )


@pytest.mark.parametrize(
    ("changed", "steps"),
    [
        ({"logging_steps": 4}, [4, 8, 10]),
        ({"logging_steps": 5}, [5, 10]),
        ({"logging_steps": 500}, [10]),
        ({"logging_steps": 500, "logging_first_step": True}, [1, 10]),
        ({"logging_steps": 0.3}, [3, 6, 9, 10]),
        ({"logging_strategy": "epoch", "max_steps": 7}, [5, 7]),
        ({"logging_strategy": "no"}, []),
        ({"logging_strategy": "no", "logging_first_step": True}, [1]),
    ],
)
def test_each_step_is_in_a_log_once_and_the_last_steps_are_in_that_of_the_end(
    tmp_path: Path, changed: dict[str, Any], steps: list[int]
) -> None:
    trained = trainer(tmp_path, **changed)
    metrics = trained.train().metrics
    entries = [entry for entry in trained.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in entries] == steps
    if changed.get("logging_strategy") != "no":
        before = [0, *steps]
        summed = sum(
            entry["loss"] * (entry["step"] - step)
            for entry, step in zip(entries, before, strict=False)
        )
        assert summed / steps[-1] == pytest.approx(metrics["train_loss"])
        assert {"grad_norm", "learning_rate"} <= set(entries[-1])
    assert set(metrics) == {
        *("train_runtime", "train_samples_per_second", "train_steps_per_second"),
        *("train_loss", "epoch"),
    }


def test_a_training_that_is_stopped_early_logs_the_loss_of_its_last_steps(tmp_path: Path) -> None:
    class Stops(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop |= state.global_step == 6

    trained = trainer(tmp_path, Stops, logging_steps=4)
    trained.train()
    expected = losses_by_hand(1, epochs=2, max_norm=1.0)
    assert logged(trained, "loss")[-1] == pytest.approx(sum(expected[4:6]) / 2, rel=1e-6)


def test_events_pass_the_loss_of_the_batch_and_of_the_step_detached(tmp_path: Path) -> None:
    seen = Losses()
    trainer(tmp_path, seen, gradient_accumulation_steps=2).train()
    assert len(seen.of_substeps) == 4
    assert [loss.item() for loss in seen.of_steps] == pytest.approx(
        losses_by_hand(2, 2, 1.0), rel=1e-6
    )
    assert not any(loss.requires_grad for loss in seen.of_substeps + seen.of_steps)


def test_a_log_has_the_learning_rate_that_the_step_was_made_with_and_the_norm_before_clipping(
    tmp_path: Path,
) -> None:
    trained = trainer(tmp_path, max_grad_norm=1e-9)
    trained.train()
    assert logged(trained, "learning_rate") == pytest.approx(
        [0.05 * (10 - step) / 10 for step in range(10)]
    )
    assert all(norm > 1e-3 for norm in logged(trained, "grad_norm"))


def test_a_maximal_norm_of_zero_does_not_clip(tmp_path: Path) -> None:
    trained = trainer(tmp_path, max_grad_norm=0)
    trained.train()
    assert logged(trained, "loss") == pytest.approx(losses_by_hand(1, 2, math.inf), rel=1e-6)


def test_gradients_of_a_step_left_in_its_middle_are_dropped(tmp_path: Path) -> None:
    class LeavesFirstEpoch(TrainerCallback):
        def on_substep_end(
            self, args: Any, state: Any, control: TrainerControl, **kwargs: Any
        ) -> None:
            control.should_epoch_stop = state.epoch < 1 and not left
            left.append(True)

    class SeesGradients(TrainerCallback):
        def on_epoch_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
        ) -> None:
            assert all(parameter.grad is None for parameter in model.parameters())

    left: list[bool] = []
    trained = trainer(tmp_path, LeavesFirstEpoch, SeesGradients, gradient_accumulation_steps=2)
    trained.train()
    assert trained.state.global_step == 3


def test_a_loss_that_is_not_a_number_is_logged_as_it_is(tmp_path: Path) -> None:
    trained = trainer(
        tmp_path, given={"compute_loss": lambda model, batch: model(batch[0]).sum() * math.nan}
    )
    trained.train()
    assert all(math.isnan(loss) for loss in logged(trained, "loss"))


def test_a_given_optimizer_and_schedule_are_used(tmp_path: Path) -> None:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.5)
    trained = trainer(
        tmp_path, given={"model": model, "optimizers": (optimizer, StepLR(optimizer, 4, gamma=0.1))}
    )
    trained.train()
    assert logged(trained, "learning_rate") == pytest.approx([0.5] * 4 + [0.05] * 4 + [0.005] * 2)
    assert trained.optimizer is optimizer


def test_a_schedule_on_a_plateau_steps_on_the_metric_at_each_evaluation(tmp_path: Path) -> None:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.5)
    plateau = ReduceLROnPlateau(
        optimizer, factor=0.1, patience=0, threshold=1e9
    )  # every evaluation is a plateau
    trained = trainer(
        tmp_path,
        given={"model": model, "optimizers": (optimizer, plateau)},
        eval_strategy="epoch",
        metric_for_best_model="loss",
        num_train_epochs=3,
    )
    trained.train()
    assert logged(trained, "learning_rate")[::5] == pytest.approx([0.5, 0.05, 0.005])


def test_a_second_training_starts_over_with_the_trained_weights(tmp_path: Path) -> None:
    trained = trainer(tmp_path)
    trained.train()
    first = logged(trained, "loss")
    output = trained.train()
    assert output.global_step == 10
    assert logged(trained, "learning_rate")[0] == 0.05
    assert sum(logged(trained, "loss")) < sum(first)


class Stream(IterableDataset[Any]):
    """The samples of `data`, of an unknown length, that come to an end after some passes."""

    def __init__(self, passes: int) -> None:
        self.passes = passes

    def __iter__(self) -> Iterator[Any]:
        self.passes -= 1
        yield from (data() if self.passes >= 0 else ())


def test_data_without_a_length_is_gone_through_again_until_max_steps(tmp_path: Path) -> None:
    trained = trainer(tmp_path, given={"train_dataset": Stream(passes=9)}, max_steps=12)
    assert trained.train().global_step == 12


def test_data_that_comes_to_its_end_stops_the_training_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = trainer(tmp_path, given={"train_dataset": Stream(passes=1)}, max_steps=12)
    assert trained.train().global_step == 5
    assert [
        record.args for record in caplog.records if record.name == "trainer_torch.run.plan"
    ] == [(1,)]
    assert trained.control.requests[0].flag == "should_training_stop"


def test_without_clipping_a_norm_that_overflows_does_no_harm(tmp_path: Path) -> None:
    def steep(model: nn.Module, batch: list[Tensor]) -> Tensor:
        return compute_loss(model, batch)[0] * 1e30

    trained = trainer(tmp_path, given={"compute_loss": steep}, max_grad_norm=0)
    trained.train()
    assert max(logged(trained, "grad_norm")) == math.inf
    assert all(parameter.isfinite().all() for parameter in trained.model.parameters())


def test_gradients_of_an_optimizer_s_own_parameters_are_dropped_after_a_step(
    tmp_path: Path,
) -> None:
    model, weight = net(), nn.Parameter(torch.ones(()))
    optimizer = SGD([*model.parameters(), weight], lr=0.0)

    class Looks(TrainerCallback):
        def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            gradients.append(weight.grad.item())

    gradients: list[float] = []
    given = {
        "model": model,
        "optimizers": (optimizer, None),
        "compute_loss": lambda model, batch: model(batch[0]).sum() * 0 + weight,
    }
    trainer(tmp_path, Looks, given=given).train()
    assert gradients == [1.0] * 10


def test_the_samples_per_second_count_the_samples_that_there_were(tmp_path: Path) -> None:
    metrics = (
        trainer(tmp_path, given={"train_dataset": data(9)}, num_train_epochs=1).train().metrics
    )
    samples = metrics["train_samples_per_second"] / metrics["train_steps_per_second"] * 3
    assert samples == pytest.approx(9, rel=0.01)


def test_a_learning_rate_that_is_a_tensor_is_logged_as_the_step_was_made_with(
    tmp_path: Path,
) -> None:
    model = net()
    optimizer = AdamW(model.parameters(), lr=torch.tensor(0.5))
    given = {"model": model, "optimizers": (optimizer, StepLR(optimizer, 1, gamma=0.5))}
    trained = trainer(tmp_path, given=given)
    trained.train()
    assert logged(trained, "learning_rate")[:3] == pytest.approx([0.5, 0.25, 0.125])
