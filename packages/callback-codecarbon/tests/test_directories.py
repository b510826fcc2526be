"""CodeCarbon's file, in a directory that several trainings share."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from callback_codecarbon import CodeCarbonCallback
from trainer_torch.testing import small_trainer


def test_each_training_has_a_row_of_its_own_in_a_shared_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODECARBON_OUTPUT_DIR", str(tmp_path))
    for name in ("one", "two"):
        callback = CodeCarbonCallback(country_iso_code="SWE", stop_limit=100)
        small_trainer(tmp_path / name, callback, run_name=name).train()
    with (tmp_path / "emissions.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [row["project_name"] for row in rows] == ["one", "two"]
    assert len({row["run_id"] for row in rows}) == 2
