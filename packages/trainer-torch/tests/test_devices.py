"""Any accelerator that torch knows is found. A stand-in takes the place of one."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from small import data, trainer

from trainer_torch import TrainingArguments
from trainer_torch.data.data_loaders import train_dataloader
from trainer_torch.hardware.devices import (
    can_compute_in,
    empty_cache,
    find_device,
    has_tf32,
    is_out_of_memory,
)
from trainer_torch.hardware.seeding import has_accelerator_of, rng_state, set_rng_state


class StandIn:
    """A module of torch for a type of accelerator, with as many devices as it has states."""

    def __init__(self, *states: int) -> None:
        self.states = [torch.tensor([state]) for state in states]
        self.emptied = 0

    def is_available(self) -> bool:
        return True

    def get_rng_state_all(self) -> list[torch.Tensor]:
        return [state.clone() for state in self.states]

    def set_rng_state_all(self, states: list[torch.Tensor]) -> None:
        self.states = states

    def empty_cache(self) -> None:
        self.emptied += 1


class Single:
    """A module of torch for accelerators that are one device, as `torch.mps` is."""

    def __init__(self, state: int) -> None:
        self.state = torch.tensor([state])

    def get_rng_state(self) -> torch.Tensor:
        return self.state

    def set_rng_state(self, state: torch.Tensor) -> None:
        self.state = state


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(kind: str, module: Any) -> Any:
        found = types.SimpleNamespace(
            is_available=lambda: True, current_accelerator=lambda: torch.device(kind)
        )
        monkeypatch.setattr(torch, "accelerator", found)
        monkeypatch.setattr(torch, "get_device_module", lambda device: module)
        return module

    return install


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_the_accelerator_is_the_device(install: Any, kind: str) -> None:
    install(kind, StandIn())
    assert TrainingArguments().device == torch.device(kind)
    assert TrainingArguments(use_cpu=True).device == torch.device("cpu")


def test_without_an_accelerator_the_device_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = types.SimpleNamespace(is_available=lambda: False)
    monkeypatch.setattr(torch, "accelerator", nothing)
    assert find_device(use_cpu=False) == torch.device("cpu")


@pytest.mark.parametrize(("kind", "pins"), [("cuda", True), ("xpu", True), ("mps", False)])
def test_memory_is_pinned_for_accelerators_with_memory_of_their_own(
    install: Any, kind: str, pins: bool
) -> None:
    install(kind, StandIn())
    args = TrainingArguments(report_to="none")
    assert train_dataloader(data(), None, args).pin_memory is pins


def test_all_generators_of_the_accelerator_are_restored(install: Any) -> None:
    module = install("xpu", StandIn(3, 4))
    state = rng_state()
    module.states = [torch.tensor([5]), torch.tensor([6])]
    set_rng_state(state)
    assert [one.item() for one in module.states] == [3, 4]


def test_the_generator_of_an_accelerator_that_is_one_device_is_restored(install: Any) -> None:
    module = install("mps", Single(3))
    state = rng_state()
    module.state = torch.tensor([5])
    set_rng_state(state)
    assert module.state.item() == 3


@pytest.mark.parametrize(("kind", "states"), [("cuda", (5, 6)), ("xpu", (5,))])
def test_generators_of_other_accelerators_are_left_alone(
    install: Any, kind: str, states: tuple[int, ...]
) -> None:
    install("xpu", StandIn(3, 4))
    state = rng_state()
    module = install(kind, StandIn(*states))
    assert not has_accelerator_of(state)
    set_rng_state(state)
    assert [one.item() for one in module.states] == list(states)


def test_a_checkpoint_of_another_accelerator_is_told(
    tmp_path: Path, install: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "trainer_torch.hardware.seeding.find_device", lambda use_cpu: torch.device("xpu")
        )
        patch.setattr("trainer_torch.hardware.seeding.module_of", lambda device: StandIn(3))
        trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=2).train()
    trainer(tmp_path, max_steps=4).train(resume_from_checkpoint=True)
    told = [one for one in caplog.records if "accelerator" in one.getMessage()]
    assert len(told) == 1


def test_the_cache_of_the_accelerator_is_emptied(install: Any) -> None:
    module = install("xpu", StandIn())
    empty_cache(torch.device("xpu"))
    empty_cache(torch.device("cpu"))
    assert module.emptied == 1


def test_a_device_that_autocast_does_not_know_cannot_compute_in_half_precision() -> None:
    assert can_compute_in(torch.bfloat16, torch.device("cpu"))
    assert not can_compute_in(torch.bfloat16, torch.device("meta"))


@pytest.mark.parametrize(
    ("kind", "cuda", "capability", "expected"),
    [
        ("cuda", "12.6", (8, 0), True),
        ("cuda", "12.6", (7, 5), False),
        ("cuda", None, (9, 4), False),
        ("xpu", None, (12, 0), False),
    ],
)
def test_tensor_float_32_is_that_of_newer_gpus_of_nvidia(
    monkeypatch: pytest.MonkeyPatch, kind: str, cuda: Any, capability: Any, expected: bool
) -> None:
    module = types.SimpleNamespace(get_device_capability=lambda: capability)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    assert has_tf32(torch.device(kind)) is expected


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 12 bytes"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_memory_are_recognized(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory")])
def test_other_errors_are_not_errors_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)
