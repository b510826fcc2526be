"""The callback beside the program's own calls of MLflow, and beside its random numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from reader import Database

from callback_contract.testing import unused_port
from callback_mlflow import MLflowCallback
from trainer_torch.testing import draws_after_training


@pytest.mark.parametrize("name", ["small", None])
def test_a_training_draws_the_same_random_numbers_with_and_without_the_callback(
    name: str | None, database: Database, tmp_path: Path
) -> None:
    expected = draws_after_training(tmp_path / "without", run_name=name)
    assert draws_after_training(tmp_path / "with", MLflowCallback, run_name=name) == expected
    assert len(database.runs("Default")) == 1


def test_a_server_that_is_away_changes_no_random_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # MLflow draws the time between them
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0.01")
    away = MLflowCallback(tracking_uri=f"http://127.0.0.1:{unused_port()}", flush_limit=3)
    expected = draws_after_training(tmp_path / "without")
    assert draws_after_training(tmp_path / "with", away) == expected
