"""The callback keeps the callback contract online."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from neptune_server import NeptuneServer
from recorded import as_recorded_run

from callback_contract import Deviation, RecordedRun, Setting, TrackerContract
from callback_neptune import NeptuneCallback

# Not the API token, because the error about it does not show it; see test_settings.py.
SETTINGS = (
    Setting(
        "project",
        "NEPTUNE_PROJECT",
        None,
        examples=[("team/letters", "team/letters"), ("letters", "letters")],
        given=[("mine/first", "mine/first")],
        wrong=["a//b", "a/b/c"],
        wrong_given=["a/b/c", "", 7],
        choices=["the name of a project, such as 'workspace-name/project-name'"],
    ),
    Setting(
        "mode",
        "NEPTUNE_MODE",
        None,
        examples=[("offline", "offline"), ("Debug", "debug"), ("ASYNC", "async"), ("sync", "sync")],
        given=[("OFFLINE", "offline")],
        wrong=["fast"],
        wrong_given=["read-only", "", 7],
        choices=["async", "sync", "offline", "debug"],
    ),
    Setting(
        "custom_run_id",
        "NEPTUNE_CUSTOM_RUN_ID",
        None,
        examples=[("theirs", "theirs"), ("x" * 36, "x" * 36)],
        given=[("mine", "mine")],
        wrong=["x" * 37],
        wrong_given=["x" * 37, "", 7],
        choices=["at most 36 characters"],
    ),
)


class TestOnline(TrackerContract):
    contract = (2, 0)
    capabilities = frozenset(
        {"sdk", "state", "resume", "status", "parameters", "text", "files", "unreachable"}
        | {"settings", "redacts", "scalars"}
    )
    settings = SETTINGS
    deviations = {  # noqa: RUF012
        "LEF-001": Deviation("the stand-in's threads wait at the connections of LEF-007"),
        "RES-003": Deviation("Neptune does not accept a second value at a step"),
        "RES-006": Deviation("Neptune does not accept a second value at a step"),
        "LEF-007": Deviation("Neptune keeps five connections to a server, for the next run"),
    }
    sdk = "neptune"
    flush_limit = 2.0
    server: ClassVar[NeptuneServer]

    @pytest.fixture(autouse=True)
    def served(self, server: NeptuneServer) -> None:
        type(self).server = server

    def make(self, output_dir: Path, **settings: Any) -> NeptuneCallback:
        project = f"team/{output_dir.parent.name}-{output_dir.name}"
        return NeptuneCallback(project=project, log_checkpoints="same", **settings)

    def make_with(self, output_dir: Path, **arguments: Any) -> NeptuneCallback:
        return NeptuneCallback(**arguments)

    def make_unreachable(self, output_dir: Path) -> NeptuneCallback:
        self.server.stop()
        return self.make(output_dir, flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        self.server.start()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        project = f"team/{output_dir.parent.name}-{output_dir.name}"
        return [as_recorded_run(run) for run in self.server.runs if run.project == project]
