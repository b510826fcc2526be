"""DagsHub's callback keeps the contract of callbacks, read back from MLflow's server behind it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from dagshub_server import DagsHub

from callback_contract import RecordedRun, TrackerContract
from callback_dagshub import DagsHubCallback


class TestDagsHub(TrackerContract):
    contract = (1, 0)
    expect = "126 run, 5 not claimed, 0 deviates"
    capabilities = frozenset(
        {"state", "resume", "status", "parameters", "files", "non_finite", "sdk", "unreachable"}
    )
    sdk = "dagshub"
    flush_limit = 2.0
    dagshub: ClassVar[DagsHub]

    @pytest.fixture(autouse=True)
    @classmethod
    def _stand_in(cls, dagshub: DagsHub) -> None:
        cls.dagshub = dagshub

    def make(self, output_dir: Path, **settings: object) -> DagsHubCallback:
        usual = {"experiment_name": str(output_dir), "log_artifacts": True}
        return DagsHubCallback("o/r", **{**usual, **settings})

    def make_unreachable(self, output_dir: Path) -> DagsHubCallback:
        self.dagshub.stop()
        return self.make(output_dir, flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        self.dagshub.start()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        return self.dagshub.mlflow.runs(str(output_dir))
