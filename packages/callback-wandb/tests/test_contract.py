"""The callback passes the contract of training callbacks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from recorded import Artifact, runs
from wandb_server import WandbServer

from callback_contract import RecordedRun, Rule, Setting, TrackerContract
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


class TestContract(TrackerContract):
    contract = (1, 1)
    capabilities = frozenset(
        {"sdk", "state", "resume", "status", "parameters", "non_finite", "text", "files"}
        | {"unreachable", "settings", "tracking"}
    )
    settings = SETTINGS
    module = "callback_wandb"
    sdk = "wandb"
    flush_limit = 1.0
    patience = 20.0
    expect = "216 run, 43 not claimed, 0 deviates"
    server: ClassVar[WandbServer]
    be_patient: ClassVar[Any]

    log_model = "checkpoint"

    @pytest.fixture(autouse=True)
    def without_models(self, request: pytest.FixtureRequest) -> None:
        """Keep none where the rule has a tracker of its own, which knows of no final model."""
        if "rule" in request.fixturenames:
            rule: Rule = request.getfixturevalue("rule")
            if "tracking" in rule.needs:
                self.log_model = "false"

    @pytest.fixture(autouse=True)
    def away(self, monkeypatch: pytest.MonkeyPatch, impatient: Any) -> Any:
        """Have a server that is not there, for the rules that ask for one; all else is offline."""
        monkeypatch.setenv("WANDB_MODE", "offline")  # to which it is set back
        type(self).server = WandbServer()
        type(self).be_patient = staticmethod(impatient)
        yield
        late = [t for t in threading.enumerate() if t.name.startswith("deliver to ")]
        for thread in late:  # it would begin a session of the next
            thread.join(300.0)
        self.server.stop()
        assert not any(thread.is_alive() for thread in late), "a delivery does not come to an end"

    def make(self, output_dir: Path) -> Any:
        return WandbCallback(log_model=self.log_model)

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
