"""The callback passes the contract of training callbacks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import wandb
from recorded import Artifact, runs
from wandb_server import WandbServer

from callback_contract import Deviation, RecordedRun, Setting, TrackerContract
from callback_wandb import WandbCallback

_STATUS = {None: "running", 0: "finished", 1: "failed", 255: "interrupted"}

ON = ("1", "on", "Yes", "TRUE")
OFF = ("false", "0", "off", "No", "FALSE")

SETTINGS = (
    Setting(
        "project",
        "WANDB_PROJECT",
        "huggingface",
        examples=[("digits", "digits"), ("größer als 1", "größer als 1")],
        given=[("mine", "mine")],
        wrong=["team/project", "a" * 129],
        wrong_given=["", " ", 7],
        choices=["without / \\ # ? % :"],
    ),
    Setting(
        "log_model",
        "WANDB_LOG_MODEL",
        "false",
        examples=[("end", "end"), ("Checkpoint", "checkpoint")]
        + [(text, "end") for text in ON]
        + [(text, "false") for text in OFF],
        given=[("checkpoint", "checkpoint"), (True, "end"), (False, "false")],
        wrong=["all"],
        wrong_given=["always", "", 3],
        choices=["end", "checkpoint", "false"],
    ),
    Setting(
        "watch",
        "WANDB_WATCH",
        "false",
        examples=[("gradients", "gradients"), ("parameters", "parameters"), ("All", "all")]
        + [(text, "false") for text in OFF],
        given=[("gradients", "gradients"), (False, "false")],
        wrong=["true"],
        wrong_given=[True, "", 3],
        choices=["gradients", "parameters", "all", "false"],
    ),
)


STAYS_OPEN = "an offline run of evaluations stays open until the next training or the exit"


class TestContract(TrackerContract):
    contract = (2, 0)
    capabilities = frozenset(
        {"sdk", "state", "resume", "status", "parameters", "non_finite", "text", "files"}
        | {"unreachable", "settings", "redacts", "scalars"}
    )
    settings = SETTINGS
    module = "callback_wandb"
    deviations = dict.fromkeys(("LEF-001", "LEF-002", "LEF-007", "LEF-009"), Deviation(STAYS_OPEN))
    sdk = "wandb"
    flush_limit = 1.0
    stored_within = 20.0
    server: ClassVar[WandbServer]
    be_patient: ClassVar[Any]

    @pytest.fixture(autouse=True)
    def away(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, impatient: Any
    ) -> Any:
        """Provide a stopped server for the rules that need one. All other rules run offline."""
        monkeypatch.setenv("WANDB_MODE", "offline")  # makes monkeypatch restore it
        type(self).server = WandbServer()
        type(self).be_patient = staticmethod(impatient)
        yield
        late = [t for t in threading.enumerate() if t.name.startswith("deliver to ")]
        for thread in late:  # it would start a session in the next test
            thread.join(300.0)
        self.server.stop()
        if "DEL-008" in request.node.name:  # after 1,200 names, W&B keeps its log file open
            wandb.teardown()
        assert not any(thread.is_alive() for thread in late), "a delivery does not end"

    def make(self, output_dir: Path) -> Any:
        return WandbCallback(log_model="checkpoint")

    def make_with(self, output_dir: Path, **arguments: Any) -> Any:
        return WandbCallback(**arguments)

    def make_unreachable(self, output_dir: Path) -> Any:
        os.environ |= {"WANDB_MODE": "online", "WANDB_BASE_URL": self.server.url}
        os.environ["WANDB_API_KEY"] = "a" * 40
        return WandbCallback(flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        self.server.start()
        self.be_patient()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        if served := self.server.runs.values():  # the SDK also writes files for these runs
            return [recorded(r.id, r.rows(), r.config(), r.summary(), r.exit_code) for r in served]
        return [
            recorded(r.id, r.rows, r.config, r.summary, r.exit_code, r.artifacts)
            for r in runs(output_dir)
        ]


def recorded(
    run_id: str,
    rows: list[dict[str, Any]],
    config: dict[str, Any],
    summary: dict[str, Any],
    exit_code: int | None,
    artifacts: Iterable[Artifact] = (),
) -> RecordedRun:
    """Return a run in the contract's form."""
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
