"""An error that ends a training leaves a checkpoint from which the training continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import compute_loss, data, trainer
from torch import nn
from training_to_kill import Augmented, Draws, Stream

from callback_core import TrainerCallback
from trainer_torch.ranks.hang_error import HangError
from trainer_torch.storage.checkpoint import list_checkpoints
from trainer_torch.testing import At


class Fault(ArithmeticError):
    """Ends a training."""


class Raises(TrainerCallback):
    """Raises at an event of the step after `steps` steps are done."""

    def __init__(self, event: str, steps: int) -> None:
        def fail(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == steps:
                raise Fault

        setattr(self, event, fail)


class Net(nn.Module):
    """A network with dropout and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.25))
        self.last = nn.Linear(8, 3)

    def forward(self, features: Any) -> Any:
        return self.last(self.layers(features))


class Breaks(Net):
    """Fails in a forward pass, after its statistics have changed and it has drawn."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def forward(self, features: Any) -> Any:
        scores = super().forward(features)
        self.left -= self.training
        if self.left == 0:
            raise Fault
        return scores


class BreaksInTheData(Augmented):
    """Has a sample that cannot be read, once."""

    is_broken = True

    def __getitem__(self, index: int) -> Any:
        if index == 7 and self.is_broken:
            raise Fault
        return super().__getitem__(index)


def run(out: Path, model: nn.Module, *callbacks: Any, resume: bool = False, **given: Any) -> Any:
    dataset = given.pop("dataset", Augmented())
    made = trainer(
        out,
        Draws(),
        *callbacks,
        given={"model": model, "train_dataset": dataset},
        max_steps=9,
        **{"save_on_exception": True, **given},
    )
    made.train(resume_from_checkpoint=resume)
    return made


def end(trained: Any) -> Any:
    logs = [
        {name: value for name, value in entry.items() if not name.startswith("train_")}
        for entry in trained.state.log_history
    ]
    weights = [value.tolist() for value in trained.model.state_dict().values()]
    return weights, logs, trained.state.stateful_callbacks.get("Draws"), trained.callbacks_sum


def ended(trained: Any) -> Any:
    trained.callbacks_sum = next(
        one.sum for one in trained.callback_handler.callbacks if isinstance(one, Draws)
    )
    return end(trained)


@pytest.mark.parametrize("case", ["forward", "data", "stream", "on_step_begin", "substep"])
def test_a_resumed_training_ends_like_an_undisturbed_one(tmp_path: Path, case: str) -> None:
    given: dict[str, Any] = {"dataset": Stream()} if case == "stream" else {}
    if case == "substep":
        given["gradient_accumulation_steps"] = 2
    model: nn.Module = Breaks(5) if case in ("forward", "stream") else Net()
    callbacks = [Raises("on_step_begin", 4)] if case == "on_step_begin" else []
    if case == "substep":
        callbacks = [Raises("on_substep_end", 2)]
    failing = {**given, "dataset": BreaksInTheData()} if case == "data" else given
    with pytest.raises(Fault):
        run(tmp_path / "failed", model, *callbacks, **failing)
    assert len(list_checkpoints(tmp_path / "failed")) == 1
    if case == "stream":
        given["dataset"] = Stream()
    resumed = run(tmp_path / "failed", Net(), resume=True, **given)
    if case == "stream":
        given["dataset"] = Stream()
    whole = run(tmp_path / "whole", Net(), **given)
    assert ended(resumed)[:2] == ended(whole)[:2]
    assert ended(resumed)[3] == ended(whole)[3]


def test_the_weights_are_saved_after_an_error_of_an_evaluation(tmp_path: Path) -> None:
    def fail(_: Any) -> Any:
        raise Fault

    made = trainer(
        tmp_path,
        given={"compute_metrics": fail},
        eval_strategy="steps",
        eval_steps=3,
        max_steps=5,
        save_on_exception=True,
    )
    with pytest.raises(Fault):
        made.train()
    assert [one.name for one in list_checkpoints(tmp_path)] == ["checkpoint-3"]
    resumed = trainer(tmp_path, max_steps=5)
    resumed.train(resume_from_checkpoint=True)
    undisturbed = trainer(tmp_path / "other", max_steps=5)
    undisturbed.train()
    weights = [
        [value.tolist() for value in one.model.state_dict().values()]
        for one in (resumed, undisturbed)
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("event", ["on_optimizer_step"])
def test_a_state_within_an_update_is_not_saved(tmp_path: Path, event: str) -> None:
    with pytest.raises(Fault):
        run(tmp_path, Net(), Raises(event, 4))
    assert list_checkpoints(tmp_path) == []


def test_a_process_that_has_lost_the_others_does_not_wait_for_them_to_save(tmp_path: Path) -> None:
    def lose() -> None:
        raise HangError

    with pytest.raises(HangError):
        run(tmp_path, Net(), At(4, lose))
    assert list_checkpoints(tmp_path) == []


def test_an_error_before_the_first_update_is_not_masked(tmp_path: Path) -> None:
    with pytest.raises(Fault):
        run(tmp_path, Net(), Raises("on_train_begin", 0))
    assert list_checkpoints(tmp_path) == []


def test_a_failure_of_the_save_does_not_mask_the_error(tmp_path: Path) -> None:
    class NoState(TrainerCallback):
        is_ready = True

        def state_dict(self) -> Any:
            return {"state": 1 if self.is_ready else object()}

        def load_state_dict(self, state: Any) -> None: ...

    one = NoState()

    def spoil() -> None:
        one.is_ready = False
        raise Fault

    made = trainer(
        tmp_path,
        one,
        At(3, spoil),
        given={"compute_loss": compute_loss, "train_dataset": data()},
        save_on_exception=True,
    )
    with pytest.raises(Fault):
        made.train()
    assert list_checkpoints(tmp_path) == []


def test_nothing_is_saved_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(Fault):
        run(tmp_path, Breaks(5), save_on_exception=False)
    assert list_checkpoints(tmp_path) == []
