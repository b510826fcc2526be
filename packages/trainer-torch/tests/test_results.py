"""The methods by which scripts print and keep their results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import data, trainer

from callback_core import TrainerState


def read(path: Path) -> dict[str, float]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("eval_loss", 0.5, "0.5"),
        ("epoch", 2, "2"),
        ("eval_samples", 12345, "12,345"),
        ("eval_runtime", 0.25, "0.25 s"),
        ("eval_runtime", 3661.2, "1:01:01"),
        ("eval_runtime", 90061.0, "1 day, 1:01:01"),
        ("train_mem_cpu_alloc_delta", 3 * 2**20, "3 MiB"),
        ("eval_note", "none", "none"),
    ],
)
def test_a_printed_metric_has_its_units(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any, shown: str
) -> None:
    trainer(tmp_path).log_metrics("eval", {name: value})
    _, line = capsys.readouterr().out.splitlines()
    assert [part.strip() for part in line.split("=")] == [name, shown]


def test_no_metrics_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer(tmp_path).log_metrics("eval", {})
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_metrics_of_a_training_are_kept_by_split_and_together(tmp_path: Path) -> None:
    trained = trainer(tmp_path / "run")
    metrics = trained.train().metrics
    trained.save_metrics("train", metrics)
    trained.save_metrics("eval", {"eval_accuracy": np.float32(0.5)})
    assert read(tmp_path / "run" / "train_results.json") == metrics
    assert read(tmp_path / "run" / "eval_results.json") == {"eval_accuracy": 0.5}
    assert read(tmp_path / "run" / "all_results.json") == {**metrics, "eval_accuracy": 0.5}


def test_metrics_that_are_not_combined_are_only_in_their_own_file(tmp_path: Path) -> None:
    trainer(tmp_path).save_metrics("test", {"test_loss": 1.0}, combined=False)
    assert [path.name for path in tmp_path.glob("*.json")] == ["test_results.json"]


def test_a_saved_state_has_all_logs(tmp_path: Path) -> None:
    trained = trainer(tmp_path)
    trained.train()
    trained.save_state()
    saved = TrainerState.load_from_json(tmp_path / "trainer_state.json")
    assert saved.log_history == trained.state.log_history


def test_the_examples_of_a_loader_are_those_of_its_dataset(tmp_path: Path) -> None:
    some = trainer(tmp_path)
    assert some.num_examples(some.get_eval_dataloader(data(7))) == 7
