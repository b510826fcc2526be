"""`MLflowCallback` keeps the callback contract. Runs are read from the database without MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import mlflow
import pytest
from reader import Database

from callback_contract import Deviation, RecordedRun, Setting, TrackerContract
from callback_mlflow import MLflowCallback
from callback_mlflow.testing import FLAGS, SETTINGS, STATUS, Read


class TestMLflow(TrackerContract):
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
        "LEF-007": Deviation("MLflow keeps a pool of connections to SQLite open")
    }
    sdk = "mlflow"
    flush_limit = 2.0
    made: ClassVar[Path]

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _folder(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Create an empty database, once because it takes seconds, and a folder of artifacts."""
        cls.made = tmp_path_factory.mktemp("made")
        client = mlflow.MlflowClient(f"sqlite:///{cls.made}/mlflow.db")
        client.create_experiment("contract", str(cls.made))

    def make(self, output_dir: Path, **settings: Any) -> MLflowCallback:
        database = output_dir / "mlflow.db"
        if not database.exists():
            shutil.copy(self.made / "mlflow.db", database)
        usual = {"tracking_uri": f"sqlite:///{database}", "experiment_name": "contract"}
        return MLflowCallback(**{**usual, "log_artifacts": True, **settings})

    def make_with(self, output_dir: Path, **arguments: Any) -> MLflowCallback:
        return MLflowCallback(**arguments)

    def make_unreachable(self, output_dir: Path) -> MLflowCallback:
        (output_dir / "away").touch()  # a file in place of the database's directory
        uri = f"sqlite:///{output_dir}/away/mlflow.db"
        return self.make(output_dir, tracking_uri=uri, flush_limit=self.flush_limit)

    def deliver_later(self, output_dir: Path) -> None:
        (output_dir / "away").unlink()
        (output_dir / "away").symlink_to(output_dir)
        super().deliver_later(output_dir)

    def read(self, output_dir: Path) -> list[RecordedRun]:
        database = output_dir / "mlflow.db"
        found = Database(database).runs("contract") if database.exists() else []
        return [recorded(run, self.made / run.id / "artifacts") for run in found]


def recorded(run: Read, artifacts: Path) -> RecordedRun:
    files = [f.relative_to(artifacts).as_posix() for f in artifacts.rglob("*") if f.is_file()]
    status = STATUS[run.status]
    return RecordedRun(run.id, run.parameters, run.curves(), files=frozenset(files), status=status)
