"""The callback passes the contract of training callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from comet_server import CometServer
from recorded import Recorded

from callback_comet import CometCallback
from callback_contract import RecordedRun, TrackerContract


class TestContract(TrackerContract):
    contract = (1, 0)
    capabilities = frozenset(
        {"sdk", "state", "resume", "status", "parameters", "non_finite", "text", "files"}
        | {"unreachable"}
    )
    module = "callback_comet"
    sdk = "comet_ml"
    flush_limit = 0.5
    expect = "127 run, 4 not claimed, 0 deviates"
    server: ClassVar[CometServer]

    @pytest.fixture(autouse=True)
    def served(self, server: CometServer, monkeypatch: pytest.MonkeyPatch) -> None:
        type(self).server = server
        # Ending the files that the SDK keeps beside what it sends takes most of a second.
        name = "COMET_FALLBACK_STREAMER_FALLBACK_TO_OFFLINE_MIN_BACKEND_VERSION"
        monkeypatch.setenv(name, "100.0.0")

    def make(self, output_dir: Path) -> Any:
        return CometCallback(project_name=str(output_dir))

    def make_unreachable(self, output_dir: Path) -> Any:
        self.server.stop()
        return CometCallback(project_name=str(output_dir), flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        self.server.start()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        kept = self.server.experiments.values()
        return [recorded(one) for one in kept if one.project == str(output_dir)]


def recorded(experiment: Recorded) -> RecordedRun:
    """Return what the server has of an experiment, as the contract asks for it."""
    points: dict[str, list[tuple[int, float]]] = {}
    for name, step, value in experiment.points:
        points.setdefault(name, []).append((step, value))
    text: dict[str, list[tuple[int, str]]] = {}
    for name, step, string in experiment.texts:
        text.setdefault(name, []).append((step, string))
    return RecordedRun(
        id=experiment.key,
        parameters=experiment.parameters,
        points=points,
        text=text,
        files=frozenset(experiment.files),
        status=experiment.others.get("training_status") if experiment.ended else "running",
    )
