"""`AzureMLCallback` keeps the callback contract. Runs are read through MLflow's REST API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import HTTPError

import pytest
from workspace import Workspace

from callback_azureml import AzureMLCallback
from callback_contract import Deviation, RecordedRun, Setting, TrackerContract
from callback_mlflow.testing import FLAGS, SETTINGS, STATUS


class TestAzureML(TrackerContract):
    contract = (2, 0)
    capabilities = frozenset(
        {"state", "resume", "status", "parameters", "files", "non_finite", "sdk", "unreachable"}
        | {"settings", "redacts", "scalars"}
    )
    settings = (
        *(Setting(**one) for one in SETTINGS),
        *(Setting.flag(**one) for one in FLAGS),
    )
    deviations = {  # noqa: RUF012
        "RUN-002": Deviation("a delivery process does not have the login of the test process"),
        "ROY-007": Deviation(
            "azure-core draws from `random` when it requests a token to upload a checkpoint"
        ),
    }
    sdk = "mlflow"
    flush_limit = 2.0
    workspace: ClassVar[Workspace]

    @pytest.fixture(autouse=True)
    def _workspace(self, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        type(self).workspace = workspace
        monkeypatch.setenv("MLFLOW_TRACKING_URI", workspace.log_in())
        yield
        workspace.start()  # a rule may have stopped it

    def make(self, output_dir: Path, **settings: Any) -> AzureMLCallback:
        usual = {"experiment_name": str(output_dir), "log_artifacts": True}
        return AzureMLCallback(**{**usual, **settings})

    def make_with(self, output_dir: Path, **arguments: Any) -> AzureMLCallback:
        return AzureMLCallback(**arguments)

    def make_unreachable(self, output_dir: Path) -> AzureMLCallback:
        self.workspace.stop()
        return self.make(output_dir, flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        self.workspace.start()
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        try:
            found = self.workspace.runs.runs(str(output_dir))
        except HTTPError:  # the experiment does not exist
            return []
        return [
            RecordedRun(
                run.id,
                run.parameters,
                run.curves(),
                files=frozenset(self.workspace.files[run.id]),
                status=STATUS[run.status],
            )
            for run in found
        ]
