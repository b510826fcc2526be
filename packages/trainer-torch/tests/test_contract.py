"""The callbacks of this package pass the contract of training callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from callback_contract import CallbackContract, Deviation
from trainer_torch import ProfilerCallback, ThroughputCallback, WeightAveragingCallback


class TestThroughput(CallbackContract):
    contract = (2, 0)
    capabilities = frozenset({"state"})

    def make(self, output_dir: Path) -> Any:
        return ThroughputCallback()


class TestProfiler(CallbackContract):
    contract = (2, 0)
    capabilities = frozenset[str]()
    deviations = {  # noqa: RUF012
        "LIF-008": Deviation("a process can run one profiler of torch only"),
    }

    def make(self, output_dir: Path) -> Any:
        return ProfilerCallback(wait=1, warmup=1, active=2)


class TestWeightAveraging(CallbackContract):
    contract = (2, 0)
    capabilities = frozenset[str]()

    def make(self, output_dir: Path) -> Any:
        return WeightAveragingCallback()
