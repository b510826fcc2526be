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
