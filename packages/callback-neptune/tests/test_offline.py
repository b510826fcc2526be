"""Offline runs: what a training leaves in Neptune's data directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import neptune
import pytest
from recorded import Recorded, offline_runs

from callback_contract.testing import run_python
from callback_neptune import NeptuneCallback
from trainer_torch.testing import At, comparable, logged_points, pickled_copies, small_trainer


def offline(**settings: Any) -> NeptuneCallback:
    return NeptuneCallback(mode="offline", **settings)


def only(tmp_path: Path) -> Recorded:
    (run,) = offline_runs(tmp_path / "neptune")
    return run


def test_the_directory_has_the_whole_training(tmp_path: Path) -> None:
    trained = small_trainer(tmp_path / "out", offline())
    trained.train()
    run = only(tmp_path)
    assert run.curves() == logged_points(trained)
    assert run.fields["sys/name"] == "small"
    assert run.fields["finetuning/trainer_parameters/learning_rate"] == 0.05
    assert run.fields["finetuning/training_status"] == "finished"


@pytest.mark.slow
def test_a_delivery_process_writes_the_directory_too(tmp_path: Path) -> None:
    trained = small_trainer(tmp_path / "out", offline(delivery="process", flush_limit=100.0))
    trained.train()
    assert only(tmp_path).curves() == logged_points(trained)


def test_same_keeps_all_checkpoints(tmp_path: Path) -> None:
    trainer = small_trainer(
        tmp_path / "out",
        offline(log_checkpoints="same"),
        save_strategy="epoch",
        save_total_limit=1,
    )
    trainer.train()
    run = only(tmp_path)
    assert set(run.file_sets) == {f"finetuning/checkpoints/checkpoint-{n}" for n in (4, 8, 12)}
    kept = tmp_path / "out" / "checkpoint-12"
    for file in (f for f in kept.rglob("*") if f.is_file()):
        name = file.relative_to(kept).as_posix()
        assert run.file_sets["finetuning/checkpoints/checkpoint-12"][name] == file.read_bytes()


def test_last_keeps_the_newest_checkpoint(tmp_path: Path) -> None:
    trainer = small_trainer(
        tmp_path / "out", offline(log_checkpoints="last"), save_strategy="epoch"
    )
    trainer.train()
    run = only(tmp_path)
    assert set(run.file_sets) == {"finetuning/checkpoints/last/checkpoint-12"}
    before = [f"finetuning/checkpoints/last/checkpoint-{n}" for n in (4, 8)]
    assert run.deleted == before


@pytest.mark.parametrize(("better", "best"), [(False, 12), (True, 4)])
def test_best_keeps_the_best_checkpoint(tmp_path: Path, better: bool, best: int) -> None:
    trainer = small_trainer(
        tmp_path / "out",
        offline(log_checkpoints="best"),
        save_strategy="epoch",
        metric_for_best_model="loss",
        greater_is_better=better,
    )
    trainer.train()
    losses = {e["step"]: e["eval_loss"] for e in trainer.state.log_history if "eval_loss" in e}
    assert best == (max if better else min)(losses, key=lambda step: losses[step])
    assert set(only(tmp_path).file_sets) == {f"finetuning/checkpoints/best/checkpoint-{best}"}


def test_no_checkpoint_is_the_best_without_a_metric(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small_trainer(tmp_path / "out", offline(log_checkpoints="best"), save_strategy="epoch").train()
    assert not only(tmp_path).file_sets
    assert "metric_for_best_model" in caplog.text


def test_no_checkpoint_is_uploaded_by_default(tmp_path: Path) -> None:
    small_trainer(tmp_path / "out", offline(), save_strategy="epoch").train()
    assert not only(tmp_path).file_sets


def test_a_resumed_training_gets_its_own_directory(tmp_path: Path) -> None:
    small_trainer(tmp_path / "out", offline(), save_strategy="epoch", max_steps=8).train()
    resumed = small_trainer(tmp_path / "out", offline(), save_strategy="epoch")
    resumed.train(resume_from_checkpoint=True)
    first, second = offline_runs(tmp_path / "neptune")
    both = first.curves() | second.curves()
    wanted = comparable(logged_points(resumed))
    assert {key: both[key] for key in wanted} == wanted
    assert not comparable(first.curves()).keys() & comparable(second.curves()).keys()


def test_a_given_run_is_used_and_not_stopped(tmp_path: Path) -> None:
    mine = users_run()
    trained = small_trainer(tmp_path / "out", NeptuneCallback(run=mine))
    trained.train()
    assert NeptuneCallback.get_run(trained) is mine
    mine["note"] = "still open"
    mine.stop()
    run = only(tmp_path)
    assert run.curves() == logged_points(trained)
    assert run.fields["note"] == "still open"


def test_a_stopped_given_run_is_reported_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine = users_run()
    mine.stop()
    callback = NeptuneCallback(run=mine, mode="offline")
    trained = small_trainer(tmp_path / "out", callback)
    trained.train()
    assert "callback_neptune.tracker" in {record.name for record in caplog.records}
    _, own = offline_runs(tmp_path / "neptune")
    assert own.curves() == logged_points(trained)


def test_the_environment_selects_the_offline_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEPTUNE_MODE", "offline")
    small_trainer(tmp_path / "out", NeptuneCallback()).train()
    assert only(tmp_path).fields["finetuning/training_status"] == "finished"


def test_the_debug_mode_stores_nothing(tmp_path: Path) -> None:
    small_trainer(tmp_path / "out", NeptuneCallback(mode="debug")).train()
    assert not (tmp_path / "neptune").exists()
    assert not (tmp_path / "out" / "tracking").exists()


def test_importing_the_package_does_not_import_neptune() -> None:
    done = run_python("-c", "import callback_neptune, sys; sys.exit('neptune' in sys.modules)")
    assert done.returncode == 0, done.stderr


def users_run() -> neptune.Run:
    return neptune.init_run(
        mode="offline",
        capture_stdout=False,
        capture_stderr=False,
        capture_hardware_metrics=False,
        capture_traceback=False,
        git_ref=False,
        source_files=[],
    )


def test_names_that_neptune_takes_for_one_stay_apart(tmp_path: Path) -> None:
    trained = small_trainer(tmp_path / "out", offline())
    logs = {name: float(value) for value, name in enumerate(("a//b", "a/b", "/a/b"), 100)}
    trained.add_callback(At(3, lambda: trained.log(logs)))
    trained.train()
    curves = only(tmp_path).curves()
    assert set(logs.values()) <= set(curves.values())


def test_a_text_that_neptune_would_cut_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained = small_trainer(tmp_path / "out", offline())
    trained.add_callback(At(3, lambda: trained.log({"note": "x" * 1500})))
    trained.train()
    [line] = [message for message in caplog.messages if "note" in message]
    assert "1000" in line


def test_the_callback_can_be_pickled_before_during_and_after_a_training(tmp_path: Path) -> None:
    callback = offline()
    copies = pickled_copies(tmp_path / "out", callback)
    assert [(type(copy), copy.session) for copy in copies] == [(type(callback), None)] * 3
    assert all(copy.tracker.settings() for copy in copies)
