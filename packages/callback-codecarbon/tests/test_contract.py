"""The callback passes the contract of training callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from callback_codecarbon import CodeCarbonCallback
from callback_contract import CallbackContract


class TestContract(CallbackContract):
    contract = (1, 0)
    capabilities = frozenset({"sdk", "state"})
    module = "callback_codecarbon"
    sdk = "codecarbon"
    expect = "57 run, 3 not claimed, 0 deviates"

    def make(self, output_dir: Path) -> Any:
        return CodeCarbonCallback(country_iso_code="SWE", stop_limit=60)
