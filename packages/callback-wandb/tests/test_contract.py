"""The callback passes the contract of training callbacks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from recorded import Artifact, runs
from wandb_server import WandbServer

from callback_contract import RecordedRun, TrackerContract
from callback_wandb import WandbCallback

_STATUS = {None: "running", 0: "finished", 1: "failed", 255: "interrupted"}


class TestContract(TrackerContract):
    contract = (1, 0)
    capabilities = frozenset(
        {"sdk", "state", "resume", "status", "parameters", "non_finite", "text", "files"}
        | {"unreachable"}
    )
    module = "callback_wandb"
    sdk = "wandb"
    flush_limit = 1.0
    patience = 20.0
    expect = "127 run, 4 not claimed, 0 deviates"
    server: ClassVar[WandbServer]

    @pytest.fixture(autouse=True)
    def away(self, monkeypatch: pytest.MonkeyPatch, impatient: None) -> Any:
        """Have a server that is not there, for the rules that ask for one; all else is offline."""
        monkeypatch.setenv("WANDB_MODE", "offline")  # to which it is set back
        type(self).server = WandbServer()
        yield
        self.server.stop()

    def make(self, output_dir: Path) -> Any:
        return WandbCallback(log_model="checkpoint")

    def make_unreachable(self, output_dir: Path) -> Any:
        os.environ |= {"WANDB_MODE": "online", "WANDB_BASE_URL": self.server.url}
        os.environ["WANDB_API_KEY"] = "a" * 40
        return WandbCallback(flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        self.server.start()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        served = self.server.runs.values()
        return [
            *(recorded(r.id, r.rows(), r.config(), r.summary(), r.exit_code) for r in served),
            *(
                recorded(r.id, r.rows, r.config, r.summary, r.exit_code, r.artifacts)
                for r in runs(output_dir)
            ),
        ]


def recorded(
    run_id: str,
    rows: list[dict[str, Any]],
    config: dict[str, Any],
    summary: dict[str, Any],
    exit_code: int | None,
    artifacts: Iterable[Artifact] = (),
) -> RecordedRun:
    """Return what was read of a run as the contract asks for it."""
    points: dict[str, list[tuple[int, float]]] = {}
    text: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        for name, value in row.items():
            if not name.startswith("_") and name != "train/global_step":
                kind: Any = text if isinstance(value, str) else points
                kind.setdefault(name, []).append((row["train/global_step"], value))
    return RecordedRun(
        id=run_id,
        parameters=config,
        points=points,
        text=text,
        summary={f"train/{name}": value for name, value in summary.items() if "/" not in name},
        files=frozenset(
            f"{alias}/{file}" for kept in artifacts for alias in kept.aliases for file in kept.files
        ),
        status=_STATUS[exit_code],
    )
