"""The callbacks of callback_core keep the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from callback_contract import CallbackContract
from callback_core import (
    DefaultFlowCallback,
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TimeLimit,
)


class TestDefaultFlow(CallbackContract):
    contract = (2, 0)
    capabilities = frozenset({"steers"})

    def make(self, output_dir: Path) -> Any:
        return DefaultFlowCallback()


class TestPrinter(CallbackContract):
    contract = (2, 0)
    capabilities = frozenset({"prints"})

    def make(self, output_dir: Path) -> Any:
        return PrinterCallback()


class TestProgress(CallbackContract):
    contract = (2, 0)
    capabilities = frozenset({"prints"})

    def make(self, output_dir: Path) -> Any:
        return ProgressCallback()


class TestEarlyStopping(CallbackContract):
    contract = (2, 0)
    capabilities = frozenset({"stops", "state", "patience", "reasons"})
    arguments = {"eval_strategy": "steps", "load_best_model_at_end": True}  # noqa: RUF012

    def make(self, output_dir: Path) -> Any:
        return EarlyStoppingCallback(early_stopping_patience=2)

    def make_patient(self, output_dir: Path, patience: int, threshold: float) -> Any:
        return EarlyStoppingCallback(patience, threshold)


class TestTimeLimit(CallbackContract):
    contract = (2, 0)
    capabilities = frozenset({"stops", "steers", "reasons"})

    def make(self, output_dir: Path) -> Any:
        return TimeLimit("1:00:00", clock=Clock())

    def train_until_it_stops(self, training: Any) -> None:
        [limit] = training.callbacks
        training.begin()
        for _ in range(4):
            Clock.now += 1000
            training.step()
        assert limit.limit == 3600
        training.end()


class Clock:
    """Moves when the test lets it."""

    now = 0.0

    def __call__(self) -> float:
        return self.now
