"""`model_init` makes the model, a new one for each training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import Net, net, trainer
from torch.optim import SGD


def test_each_training_begins_with_a_new_model_of_the_same_weights(tmp_path: Path) -> None:
    made: list[Net] = []

    def init() -> Net:
        made.append(Net())
        return made[-1]

    tested = trainer(tmp_path, given={"model": None, "model_init": init})
    first, second = tested.train().training_loss, tested.train().training_loss
    assert first == second
    assert len({id(model) for model in made}) == 3
    assert tested.model is tested.callback_handler.model is made[-1]


def test_the_seed_of_the_arguments_decides_the_weights(tmp_path: Path) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(9)
        given = {"model": None, "model_init": Net}
        return next(trainer(tmp_path, given=given, seed=seed).model.parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_a_resumed_training_has_the_weights_of_its_checkpoint(tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": None, "model_init": Net}
    changed: dict[str, Any] = {"save_strategy": "steps", "save_steps": 3}
    whole = trainer(tmp_path / "whole", given=given)
    whole.train()
    trainer(tmp_path / "cut", given=given, **changed).train()
    resumed = trainer(tmp_path / "cut", given=given, **changed)
    resumed.train(resume_from_checkpoint=tmp_path / "cut" / "checkpoint-3")
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_model_init_may_take_the_trial(tmp_path: Path) -> None:
    trials: list[Any] = []

    def init(trial: Any) -> Net:
        trials.append(trial)
        return Net()

    trainer(tmp_path, given={"model": None, "model_init": init})
    assert trials == [None]


@pytest.mark.parametrize(
    ("given", "error", "names"),
    [
        ({"model_init": Net}, ValueError, "model_init"),
        ({"model": None}, TypeError, "model_init"),
        ({"model": None, "model_init": lambda: None}, TypeError, "model_init"),
        (
            {"model": None, "model_init": Net, "optimizers": (SGD(net().parameters()), None)},
            ValueError,
            "optimizers",
        ),
    ],
)
def test_parts_that_do_not_go_with_a_model_init_are_refused(
    tmp_path: Path, given: dict[str, Any], error: type[Exception], names: str
) -> None:
    with pytest.raises(error, match=names):
        trainer(tmp_path, given=given)
