"""Names and tags that MLflow does not take as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest

from callback_mlflow import MLflowCallback
from trainer_torch.testing import At, small_trainer

LONG = "n" * 250
NAMES = ("a b", "a(b", "a)b", "x//y", "x/_/y", "../up", "Case", "case", f"{LONG}1", f"{LONG}2")


def run_of(tmp_path: Path, logs: dict[str, Any], **settings: Any) -> Any:
    """Train with MLflow, log `logs` once, and return the run."""
    uri = f"sqlite:///{tmp_path / 'names.db'}"
    made = small_trainer(tmp_path / "out", MLflowCallback(tracking_uri=uri, **settings))
    made.add_callback(At(3, lambda: made.log(logs)))
    made.train()
    [run] = mlflow.MlflowClient(uri).search_runs(["0"])
    return run


def test_names_that_mlflow_changes_stay_apart_and_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logs = {name: float(number) for number, name in enumerate(NAMES, 100)}
    run = run_of(tmp_path, dict(logs))
    stored = {value: name for name, value in run.data.metrics.items()}
    assert set(logs.values()) <= stored.keys()
    assert max(map(len, stored.values())) == 250
    [line] = [message for message in caplog.messages if "a)b" in message]
    assert stored[logs["a)b"]] in line


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_a_tag_has_as_many_characters_as_mlflow_takes(
    tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tags = {"long": "x" * 6000, "longer": "y" * 9000}
    if by == "variable":
        monkeypatch.setenv("MLFLOW_TAGS", str(tags).replace("'", '"'))
    found = run_of(tmp_path, {}, tags=tags if by == "argument" else None).data.tags
    assert found["long"] == tags["long"]
    assert found["longer"] == "y" * 8000
    [line] = [message for message in caplog.messages if "8000" in message]
    assert "longer" in line
