"""The callback keeps the contract of callbacks, online and offline."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
from neptune_server import NeptuneServer
from recorded import Recorded, offline_runs

from callback_contract import Deviation, RecordedRun, Setting, TrackerContract
from callback_neptune import NeptuneCallback

# Not the API token: what is said of a wrong one does not show it. test_settings.py has it.
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
    contract = (1, 1)
    capabilities = frozenset(
        {"sdk", "state", "resume", "status", "parameters", "text", "files", "unreachable"}
        | {"settings", "tracking"}
    )
    settings = SETTINGS
    deviations = {  # noqa: RUF012
        "LEF-001": Deviation("the stand-in's threads wait at the connections of LEF-007"),
        "LEF-007": Deviation("Neptune keeps five connections to a server, for the next run"),
    }
    sdk = "neptune"
    flush_limit = 2.0
    expect = "213 run, 44 not claimed, 2 deviates"
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
        return [as_the_contract_has_it(run) for run in self.server.runs if run.project == project]


class TestOffline(TrackerContract):
    contract = (1, 1)
    # Settings and tracking are the same online, where they are checked.
    capabilities = frozenset({"sdk", "state", "status", "parameters", "text", "files"})
    deviations = {  # noqa: RUF012
        "DEL-006": Deviation("offline, Neptune cannot open a run again; what follows is another")
    }
    sdk = "neptune"
    patience = 30.0  # a deviation that is late would look as if it were mended
    expect = "114 run, 144 not claimed, 1 deviates"

    def make(self, output_dir: Path) -> NeptuneCallback:
        return NeptuneCallback(mode="offline", log_checkpoints="same", name=str(output_dir))

    def read(self, output_dir: Path) -> list[RecordedRun]:
        runs = offline_runs(Path(os.environ["NEPTUNE_DATA_DIRECTORY"]))
        names = {run.id: run.fields.get("sys/name") for run in runs}
        return [as_the_contract_has_it(r) for r in runs if names[r.id] == str(output_dir)]


def as_the_contract_has_it(run: Recorded) -> RecordedRun:
    """Return what is kept of a run as the contract asks for it."""
    start = "finetuning/"
    parameters = run.below("finetuning/trainer_parameters")
    parameters |= run.below("finetuning/model_parameters")
    return RecordedRun(
        id=run.id,
        parameters=parameters,
        points={p.removeprefix(start): [e[:2] for e in s] for p, s in run.series.items()},
        text={p.removeprefix(start): [e[:2] for e in s] for p, s in run.texts.items()},
        files=frozenset(run.files()),
        status=run.fields.get("finetuning/training_status", "running"),
    )
