"""`DagsHubCallback` keeps the callback contract. Runs are read from the MLflow server."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from dagshub_server import DagsHub

from callback_contract import Deviation, RecordedRun, Setting, TrackerContract
from callback_dagshub import DagsHubCallback
from callback_mlflow.testing import FLAGS, SETTINGS, STATUS, Read, Runs


class TestDagsHub(TrackerContract):
    contract = (2, 0)
    capabilities = frozenset(
        {"state", "resume", "status", "parameters", "files", "non_finite", "sdk", "unreachable"}
        | {"settings", "redacts", "scalars"}
    )
    # Not `repository`, because it has no default.
    settings = (
        Setting("branch", "BRANCH", None, [("a b", "a b")], [("c", "c")], wrong_given=("", 3)),
        Setting(
            "model_name",
            "HF_DAGSHUB_MODEL_NAME",
            "main",
            [("nets/small", "nets/small")],
            [("m.1", "m.1")],
            ("/a b", "../x"),
            ("../x", "", 3),
            ("a path of letters",),
        ),
        Setting.flag("upload_model", "HF_DAGSHUB_LOG_ARTIFACTS"),
        *(Setting(**one) for one in SETTINGS),
        *(Setting.flag(**one) for one in FLAGS),
    )
    deviations = {  # noqa: RUF012
        "LEF-001": Deviation("the stand-in has a thread for each connection that MLflow keeps"),
        "LEF-007": Deviation("MLflow keeps its connections to a server open"),
    }
    sdk = "dagshub"
    flush_limit = 2.0
    dagshub: ClassVar[DagsHub]

    @pytest.fixture(autouse=True)
    @classmethod
    def _stand_in(cls, dagshub: DagsHub) -> None:
        cls.dagshub = dagshub

    def make(self, output_dir: Path, **settings: Any) -> DagsHubCallback:
        usual: dict[str, Any] = {"experiment_name": str(output_dir), "log_artifacts": True}
        return DagsHubCallback("o/r", **{**usual, **settings})

    def make_with(self, output_dir: Path, **arguments: Any) -> DagsHubCallback:
        return DagsHubCallback("o/r", **arguments)

    def make_unreachable(self, output_dir: Path) -> DagsHubCallback:
        self.dagshub.stop()
        return self.make(output_dir, flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        self.dagshub.start()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        reader = Runs(self.dagshub.mlflow)
        try:
            found = reader.runs(str(output_dir))
        except urllib.error.HTTPError:  # the experiment does not exist
            return []
        return [recorded(run, reader) for run in found]


def recorded(run: Read, reader: Runs) -> RecordedRun:
    files = {*files_below(run.id, "", reader)}
    return RecordedRun(
        run.id, run.parameters, run.curves(), files=frozenset(files), status=STATUS[run.status]
    )


def files_below(run_id: str, folder: str, reader: Runs) -> Iterator[str]:
    for path in reader.artifacts(run_id, folder):
        inside = [*files_below(run_id, path, reader)] if "." not in Path(path).name else []
        yield from inside or [path]
