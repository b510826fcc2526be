"""The speed, the memory and the waits of a training are in its logs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from resuming import EVERY_STEP, StopAt, same, weights
from small import data, logged, trainer
from test_usage import language
from torch.utils.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from trainer_torch import Interval, LoopCallback, ThroughputCallback
from trainer_torch.callbacks.throughput import peak_of


def interval(**changed: Any) -> Interval:
    usual: dict[str, Any] = {"seconds": 2.0, "waited": 0.5, "steps": 4, "samples": 40}
    usual |= {"tokens": 400, "operations": 6e12, "peak_memory": 2**30}
    return Interval(**{**usual, **changed})


def test_the_values_of_one_process() -> None:
    assert ThroughputCallback().interval_logs([interval()]) == {
        "samples_per_second": 20,
        "tokens_per_second": 200,
        "tflops": 3,
        "peak_memory_gib": 1,
        "data_wait_seconds": 0.5,
    }


def test_the_values_of_several_processes_are_joined() -> None:
    ranks = [interval(), interval(waited=1.5, peak_memory=2**31, tokens=200, operations=2e12)]
    logs = ThroughputCallback().interval_logs(ranks)
    assert logs["samples_per_second"] == 40
    assert logs["tokens_per_second"] == 300
    assert logs["tflops"] == 2  # of each device
    assert logs["peak_memory_gib"] == 2
    assert logs["data_wait_seconds"] == 1.5


def test_what_is_unknown_is_left_out() -> None:
    unknown = {"samples": None, "tokens": None, "operations": 0.0, "peak_memory": None}
    logs = ThroughputCallback().interval_logs([interval(**unknown)])
    assert list(logs) == ["data_wait_seconds"]


def test_each_log_of_training_has_the_values(tmp_path: Path) -> None:
    trained = language(tmp_path, ThroughputCallback(peak_tflops=1.0), logging_steps=2)
    trained.train()
    for name in ("samples_per_second", "tokens_per_second", "tflops", "peak_memory_gib"):
        assert len(logged(trained, name)) == 5
        assert all(value > 0 for value in logged(trained, name))
    assert logged(trained, "mfu") == logged(trained, "tflops")


def test_tokens_and_operations_of_an_interval_are_those_of_its_steps(tmp_path: Path) -> None:
    seen: list[Interval] = []

    class Notes(LoopCallback):
        def interval_logs(self, ranks: Any) -> dict[str, float]:
            seen.extend(ranks)
            return {"rate": 1.5}

    trained = language(
        tmp_path, ThroughputCallback(), Notes(), logging_steps=2, gradient_accumulation_steps=2
    )
    trained.train()
    assert [one.steps for one in seen] == [2, 2, 2]
    assert [one.samples for one in seen] == [16, 12, 12]  # four and a last one of each epoch
    assert [one.tokens for one in seen] == [80, 60, 60]
    assert logged(trained, "rate") == [1.5] * 3
    assert sum(one.operations for one in seen) == trained.state.total_flos


def test_the_operations_are_those_of_torch_s_counter(tmp_path: Path) -> None:
    trained = language(tmp_path, ThroughputCallback())
    trained.train()
    batch = next(iter(trained.get_train_dataloader()))
    with FlopCounterMode(display=False) as counter:
        trained.training_step(trained.model, batch)
    assert trained.state.total_flos == 10 * counter.get_total_flops()


def test_a_loader_that_is_slow_is_waited_for(tmp_path: Path) -> None:
    class Slow(Dataset[Any]):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> Any:
            end = time.perf_counter() + 0.005
            while time.perf_counter() < end:
                pass
            return data()[index]

    trained = trainer(tmp_path, ThroughputCallback(), given={"train_dataset": Slow()})
    trained.train()
    assert all(waited >= 4 * 0.005 for waited in logged(trained, "data_wait_seconds"))


def test_the_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    plain, watched = trainer(tmp_path), trainer(tmp_path, ThroughputCallback())
    plain.train()
    watched.train()
    assert same(weights(plain), weights(watched))
    assert logged(plain, "loss") == logged(watched, "loss")


def test_operations_resume_exactly(tmp_path: Path) -> None:
    whole = language(tmp_path / "whole", ThroughputCallback(), **EVERY_STEP)
    whole.train()
    language(tmp_path, ThroughputCallback(), StopAt(3), **EVERY_STEP).train()
    again = ThroughputCallback()
    resumed = language(tmp_path, again, **EVERY_STEP)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.total_flos == whole.state.total_flos > 0
    resumed.train()
    assert resumed.state.total_flos == whole.state.total_flos


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla T4", 65),
        ("AMD Instinct MI300X", 1307),
        ("GPU of nobody", None),
    ],
)
def test_the_peak_of_a_device_is_found_by_its_name(name: str, peak: float | None) -> None:
    assert peak_of(name) == peak


@pytest.mark.parametrize("peak", [0, -1, "fast", True])
def test_a_peak_that_is_none_is_refused(peak: Any) -> None:
    with pytest.raises(ValueError, match="peak_tflops"):
        ThroughputCallback(peak_tflops=peak)


def test_a_compiled_model_is_counted_without_being_compiled_for_it(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    given = {"model": torch.compile(model, backend=backend)}
    trained = trainer(tmp_path, ThroughputCallback(), given=given)
    trained.train()
    assert trained.state.total_flos == 10 * 4 * 48
    assert graphs
