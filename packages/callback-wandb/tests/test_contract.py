"""The callback passes the contract of training callbacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reader import runs
from standin import StandIn

from callback_contract import RecordedRun, TrackerContract
from callback_wandb import WandbCallback

_STATUS = {0: "finished", 1: "failed", 255: "interrupted"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the SDK give up soon, and stop the servers that a test has left."""
    for name in ("INIT_TIMEOUT", "FINISH_TIMEOUT", "HTTP_TIMEOUT"):
        monkeypatch.setenv(f"WANDB_{name}", "2")
    yield
    while _STANDINS:
        _STANDINS.pop().stop()


_STANDINS: list[StandIn] = []


class TestContract(TrackerContract):
    contract = (1, 0)
    capabilities = frozenset(
        {"sdk", "state", "resume", "status", "parameters", "non_finite", "text", "unreachable"}
    )
    module = "callback_wandb"
    sdk = "wandb"
    flush_limit = 1.0
    patience = 20.0
    expect = "126 run, 5 not claimed, 0 deviates"

    def make(self, output_dir: Path) -> Any:
        return WandbCallback(flush_limit=15)  # which the rule without the SDK waits for twice

    def make_unreachable(self, output_dir: Path) -> Any:
        standin = StandIn()
        standin.stop()
        _STANDINS.append(standin)
        os.environ |= {"WANDB_MODE": "online", "WANDB_BASE_URL": standin.url}
        os.environ["WANDB_API_KEY"] = "a" * 40
        return WandbCallback(flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        _STANDINS[-1].start()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        if _STANDINS:
            return [
                recorded(run.id, run.rows(), run.config(), run.summary(), run.exit_code)
                for run in _STANDINS[-1].runs.values()
            ]
        return [
            recorded(
                run.id,
                run.rows,
                run.config,
                run.summary,
                run.exit_codes[-1] if run.ended else None,
            )
            for run in runs(output_dir)
        ]


def recorded(
    run_id: str,
    rows: list[dict[str, Any]],
    config: dict[str, Any],
    summary: dict[str, Any],
    exit_code: int | None,
) -> RecordedRun:
    """Return what was read of a run as the contract asks for it."""
    points: dict[str, list[tuple[int, float]]] = {}
    text: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("_") or name == "train/global_step":
                continue
            kind: Any = text if isinstance(value, str) else points
            kind.setdefault(name, []).append((row["train/global_step"], value))
    return RecordedRun(
        id=run_id,
        parameters=config,
        points=points,
        text=text,
        summary={f"train/{name}": value for name, value in summary.items() if "/" not in name},
        status="running" if exit_code is None else _STATUS[exit_code],
    )
