"""TensorFloat-32 and deterministic algorithms: set while the Trainer works, and restored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small import compute_loss, trainer
from torch import Tensor, nn

from trainer_torch import Trainer

VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC")


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in VARIABLES:
        monkeypatch.setenv(name, "unset below")  # so that it is restored after the test
        monkeypatch.delenv(name)
    yield


def settings() -> dict[str, Any]:
    return {
        "matmul": torch.backends.cuda.matmul.allow_tf32,
        "cudnn": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
    }


def seen_with(directory: Path, **changed: Any) -> list[dict[str, Any]]:
    """Return the settings in a step of a training, and in an evaluation after it."""
    seen: dict[bool, dict[str, Any]] = {}

    def loss(model: nn.Module, batch: list[Tensor]) -> Any:
        seen[model.training] = settings()
        return compute_loss(model, batch)

    made = trainer(directory, given={"compute_loss": loss}, max_steps=1, **changed)
    made.train()
    made.evaluate()
    return [seen[True], seen[False]]


def test_without_tf32_float32_is_exact_and_the_settings_come_back(tmp_path: Path) -> None:
    before = settings()
    assert before["cudnn"]
    for seen in seen_with(tmp_path, tf32=False):
        assert (seen["matmul"], seen["cudnn"]) == (False, False)
    assert settings() == before


def test_tf32_leaves_the_settings_as_they_are_by_default(tmp_path: Path) -> None:
    assert seen_with(tmp_path) == [settings(), settings()]


def test_a_device_without_tf32_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tf32 .* cpu"):
        trainer(tmp_path, tf32=True)


def test_full_determinism_holds_while_the_trainer_works(tmp_path: Path) -> None:
    before = settings()
    for seen in seen_with(tmp_path, full_determinism=True):
        assert (seen["deterministic"], seen["cudnn.deterministic"]) == (True, True)
    assert settings() == before
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_full_determinism_refuses_an_operation_that_is_not_deterministic(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: list[Tensor]) -> Any:
        torch.zeros(4, requires_grad=True).put_(torch.tensor([1, 1]), torch.ones(2))
        return compute_loss(model, batch)

    made: Trainer = trainer(tmp_path, given={"compute_loss": loss}, full_determinism=True)
    with pytest.raises(RuntimeError):
        made.train()


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_that_contradicts_full_determinism_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "0")
    with pytest.raises(ValueError, match=name):
        trainer(tmp_path, full_determinism=True)


def test_a_variable_that_fits_full_determinism_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    trainer(tmp_path, full_determinism=True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_a_setting_that_full_determinism_turns_off_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    trainer(tmp_path, full_determinism=True)
    assert "cudnn.benchmark" in caplog.text
