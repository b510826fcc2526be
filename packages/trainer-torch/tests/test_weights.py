"""Weights in any state are saved and loaded again, or refused before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP
from small import Net, trainer
from torch import Tensor

from trainer_torch.model.weights import load_model, save_model


def conjugate() -> Tensor:
    return torch.randn(3, dtype=torch.complex64).conj()


SAVED: dict[str, Callable[[], Tensor]] = {
    "expanded": lambda: torch.ones(1).expand(5),
    "transposed": lambda: torch.randn(3, 4).T,
    "a part of a larger one": lambda: torch.randn(10)[2:5],
    "without dimensions": lambda: torch.tensor(3.5),
    "complex": lambda: torch.randn(3, dtype=torch.complex64),
    "conjugate": conjugate,
    "negated": lambda: conjugate().imag,
    "float8": lambda: torch.randn(3).to(torch.float8_e4m3fn),
    "uint16": lambda: torch.arange(3).to(torch.uint16),
    "empty": lambda: torch.zeros(0, 3),
}

REFUSED: dict[str, Callable[[], Tensor]] = {
    "complex128": lambda: torch.randn(3, dtype=torch.complex128),
    "sparse": lambda: torch.eye(3).to_sparse(),
    "quantized": lambda: torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8),
}


class Holds(Net):
    """Has a buffer of this kind."""

    def __init__(self, buffer: Tensor) -> None:
        super().__init__()
        self.register_buffer("held", buffer)


def plain(value: Tensor) -> Any:
    return value.float().tolist() if value.element_size() == 1 else value.tolist()


@pytest.mark.parametrize("kind", SAVED)
def test_a_tensor_of_this_kind_is_loaded_again(tmp_path: Path, kind: str) -> None:
    saved, loaded = Holds(SAVED[kind]()), Holds(SAVED[kind]())
    save_model(saved, tmp_path)
    load_model(loaded, tmp_path)
    assert plain(loaded.get_buffer("held")) == plain(saved.get_buffer("held"))


@pytest.mark.parametrize("view", [lambda one: one.view(4, 3), lambda one: one.T, torch.conj])
def test_two_views_of_one_memory_are_both_loaded_again(
    tmp_path: Path, view: Callable[[Tensor], Tensor]
) -> None:
    def make() -> Holds:
        made = Holds(torch.randn(3, 4, dtype=torch.complex64))
        made.register_buffer("view", view(made.get_buffer("held")))
        return made

    saved, loaded = make(), make()
    save_model(saved, tmp_path)
    load_model(loaded, tmp_path)
    for name, value in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize("kind", REFUSED)
def test_a_tensor_of_this_kind_is_refused_before_training(tmp_path: Path, kind: str) -> None:
    made = trainer(tmp_path, given={"model": Holds(REFUSED[kind]())}, **EVERY_STEP)
    with pytest.raises(ValueError, match="held"):
        made.train()
    assert made.state.global_step == 0
