"""The callback passes the contract of training callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from clearml_server import ClearMLServer

from callback_clearml import ClearMLCallback
from callback_contract import RecordedRun, Setting, TrackerContract

STATUS = {"completed": "finished", "failed": "failed", "stopped": "interrupted"}

NAMED: Mapping[str, Any] = {
    "wrong": ["ab"],
    "wrong_given": ["", "  a ", 7],
    "choices": ["3 characters"],
}

SETTINGS = (
    Setting(
        "project_name",
        "CLEARML_PROJECT",
        "HuggingFace Transformers",
        examples=[("of the environment", "of the environment")],
        given=[("given", "given"), (" given ", "given")],
        **NAMED,
    ),
    Setting(
        "task_name",
        "CLEARML_TASK",
        None,
        examples=[("named there", "named there")],
        given=[("here", "here"), (" here ", "here")],
        **NAMED,
    ),
    Setting.flag("log_model", "CLEARML_LOG_MODEL"),
)


class TestContract(TrackerContract):
    contract = (2, 0)
    capabilities = frozenset(
        {"sdk", "state", "resume", "status", "parameters", "files", "unreachable"}
        | {"settings", "redacts", "scalars"}
    )
    settings = SETTINGS
    module = "callback_clearml"
    sdk = "clearml"
    flush_limit = 0.5
    server: ClassVar[ClearMLServer]

    @pytest.fixture(autouse=True)
    def served(self, server: ClearMLServer) -> None:
        type(self).server = server

    def make(self, output_dir: Path) -> Any:
        return ClearMLCallback(project_name=str(output_dir), log_model=True)

    def make_with(self, output_dir: Path, **arguments: Any) -> Any:
        return ClearMLCallback(**arguments)

    def make_unreachable(self, output_dir: Path) -> Any:
        self.server.mode = "gone"
        return ClearMLCallback(project_name=str(output_dir), flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        self.server.mode = "ok"
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        project = self.server.projects.get(str(output_dir))
        tasks = [task for task in self.server.tasks.values() if task["project"] == project]
        return [recorded(self.server, task) for task in tasks]


def recorded(server: ClearMLServer, task: Mapping[str, Any]) -> RecordedRun:
    """Return what the server recorded of a task."""
    points = server.points(task["id"])
    names = [model["name"] for model in server.models.values()]
    return RecordedRun(
        id=task["id"],
        parameters=server.parameters(task["id"]),
        points={f"{m}/{v}": found for (m, v), found in points.items() if m != "Summary"},
        summary={f"train/{v}": f[-1][1] for (m, v), f in points.items() if m == "Summary"},
        files=frozenset(f"{n}/{file}" for n in names for file in server.contents(n)),
        status=STATUS.get(task["status"], "running"),
    )
