"""Offline experiments, read from Comet's archives."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
from recorded import Recorded, archives_in

from callback_comet import CometCallback
from callback_contract.testing import run_python
from trainer_torch.testing import (
    At,
    Trial,
    comparable,
    logged_points,
    pickled_copies,
    raising,
    small_trainer,
)


def offline(archives: Path, **more: Any) -> CometCallback:
    return CometCallback(mode="OFFLINE", offline_directory=str(archives), **more)


def only(archives: Path) -> Recorded:
    (recorded,) = archives_in(archives)
    return recorded


def test_a_training_is_in_the_archive(tmp_path: Path) -> None:
    made = small_trainer(
        tmp_path / "out",
        offline(tmp_path / "archives", project_name="mine"),
        save_strategy="epoch",
        save_total_limit=1,
    )
    events = tmp_path / "out" / "runs" / "one" / "events.out.tfevents.1"
    events.parent.mkdir(parents=True)
    events.write_bytes(b"events")
    made.train()
    kept = only(tmp_path / "archives")
    assert kept.curves() == logged_points(made)
    assert kept.project == "mine"
    assert kept.others["Name"] == "small"
    assert kept.parameters["args|learning_rate"] == 0.05
    assert kept.parameters["config|rope|theta"] == 10.5
    assert kept.graph is not None
    assert "Linear(in_features=2" in kept.graph
    assert (kept.ended, kept.crashed) == (True, False)
    assert kept.others["training_status"] == "finished"
    # All checkpoints in their saved state, although only one is left on disk.
    assert {name.partition("/")[0] for name in kept.files} == {
        "checkpoint-4",
        "checkpoint-8",
        "checkpoint-12",
        "runs",
    }
    left = tmp_path / "out" / "checkpoint-12"
    for file in (file for file in left.rglob("*") if file.is_file()):
        assert kept.files[f"checkpoint-12/{file.relative_to(left).as_posix()}"] == file.read_bytes()
    assert kept.files["runs/one/events.out.tfevents.1"] == b"events"


def test_nothing_is_captured_by_default(tmp_path: Path) -> None:
    print("not for Comet")
    small_trainer(tmp_path / "out", offline(tmp_path / "archives")).train()
    kinds = {"metric_msg", "parameter_msg", "log_other", "graph"}
    assert only(tmp_path / "archives").kinds == kinds


def test_comets_own_settings_enable_capture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMET_AUTO_LOG_ENV_HOST", "1")
    small_trainer(tmp_path / "out", offline(tmp_path / "archives")).train()
    assert "system_details" in only(tmp_path / "archives").kinds


def test_non_finite_numbers_texts_and_long_values_are_kept(tmp_path: Path) -> None:
    made = small_trainer(tmp_path / "out", offline(tmp_path / "archives"), run_name="x" * 2000)
    odd = {"worst": math.inf, "best": -math.inf, "none": math.nan, "note": "hello"}
    made.add_callback(At(3, lambda: made.log(dict(odd))))
    made.train()
    kept = only(tmp_path / "archives")
    values = {name: value for name, step, value in kept.points if step == 3}
    assert (values["train/worst"], values["train/best"]) == (math.inf, -math.inf)
    assert math.isnan(values["train/none"])
    assert kept.texts == [("train/note", 3, "hello")]
    assert len(kept.parameters["args|run_name"]) == 1000


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("x"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_the_status_says_how_a_training_ended(
    tmp_path: Path, error: BaseException, status: str
) -> None:
    made = small_trainer(tmp_path / "out", offline(tmp_path / "archives"), At(3, raising(error)))
    with pytest.raises(type(error)):
        made.train()
    kept = only(tmp_path / "archives")
    assert kept.others["training_status"] == status
    assert kept.crashed == (status == "failed")


def test_without_assets_no_checkpoint_is_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMET_LOG_ASSETS", "false")
    small_trainer(tmp_path / "out", offline(tmp_path / "archives"), save_strategy="epoch").train()
    assert not only(tmp_path / "archives").files


def test_an_open_experiment_is_used_and_stays_open(tmp_path: Path) -> None:
    import comet_ml

    config = comet_ml.ExperimentConfig(offline_directory=str(tmp_path / "theirs"), log_code=False)
    theirs = comet_ml.start(online=False, experiment_config=config)
    try:
        made = small_trainer(tmp_path / "out", offline(tmp_path / "ours"))
        made.train()
        assert comet_ml.get_running_experiment() is theirs
        assert theirs.alive
        theirs.log_metric("mine", 1.0, step=1)
    finally:
        theirs.end()
    kept = only(tmp_path / "theirs")
    assert kept.key == theirs.get_key()
    assert {("mine", 1): 1.0}.items() <= kept.curves().items()
    assert logged_points(made).items() <= kept.curves().items()
    assert "training_status" not in kept.others
    assert not archives_in(tmp_path / "ours")


def test_a_second_training_is_a_second_experiment(tmp_path: Path) -> None:
    made = small_trainer(tmp_path / "out", offline(tmp_path / "archives"), num_train_epochs=1)
    made.train()
    made.train()
    first, second = archives_in(tmp_path / "archives")
    assert first.curves().keys() == second.curves().keys() == logged_points(made).keys()


def test_an_evaluation_after_the_training_goes_to_its_experiment(tmp_path: Path) -> None:
    made = small_trainer(tmp_path / "out", offline(tmp_path / "archives"), eval_strategy="no")
    made.train()
    made.evaluate()
    made.train(resume_from_checkpoint=None)  # ends the delivery that the evaluation began
    first, _ = archives_in(tmp_path / "archives")
    assert ("eval/loss", 12) in first.curves()


def test_a_resumed_training_continues_its_experiment(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    broken = At(5, raising(RuntimeError("power cut")))
    with pytest.raises(RuntimeError):
        small_trainer(tmp_path / "out", offline(tmp_path / "archives"), broken, **arguments).train()
    made = small_trainer(tmp_path / "out", offline(tmp_path / "archives"), **arguments)
    made.train(resume_from_checkpoint=True)
    kept = only(tmp_path / "archives")
    assert kept.others["training_status"] == "finished"
    wanted = comparable(logged_points(made))
    assert {key: v for key, v in kept.curves().items() if key in wanted} == wanted


def test_resuming_a_killed_training_completes_its_archive(tmp_path: Path) -> None:
    script = """
import os, signal, sys, time
from pathlib import Path
from trainer_torch.testing import At, small_trainer
from callback_comet import CometCallback
callback = CometCallback(mode="OFFLINE", offline_directory=sys.argv[2])
def killed():
    while callback.member.delivery.consumer.pending():
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGKILL)
saving = {"save_strategy": "steps", "save_steps": 2}
small_trainer(Path(sys.argv[1]), callback, At(5, killed), **saving).train()
"""
    done = run_python("-c", script, str(tmp_path / "out"), str(tmp_path / "archives"))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not archives_in(tmp_path / "archives")
    made = small_trainer(
        tmp_path / "out", offline(tmp_path / "archives"), save_strategy="steps", save_steps=2
    )
    made.train(resume_from_checkpoint=True)
    kept = only(tmp_path / "archives")
    assert {step for name, step in kept.curves() if name == "train/loss"} == set(range(1, 13))


def test_a_training_that_imports_the_sdk_draws_the_same_random_numbers(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from trainer_torch.testing import draws_after_training
from callback_comet import CometCallback
out = Path(sys.argv[1])
expected = draws_after_training(out / "without", run_name=None)
callback = CometCallback(mode="OFFLINE", offline_directory=sys.argv[2])
assert draws_after_training(out / "with", callback, run_name=None) == expected
"""
    done = run_python("-c", script, str(tmp_path / "out"), str(tmp_path / "archives"))
    assert done.returncode == 0, done.stderr
    assert only(tmp_path / "archives")


def test_a_delivery_process_delivers(tmp_path: Path) -> None:
    made = small_trainer(tmp_path / "out", offline(tmp_path / "archives", delivery="process"))
    made.train()
    assert only(tmp_path / "archives").curves().items() >= logged_points(made).items()


def test_a_trial_is_its_own_experiment_with_its_hyperparameters(tmp_path: Path) -> None:
    tracked = offline(tmp_path / "archives", experiment_key="k" * 32)
    trial = Trial("trial-7", {"learning_rate": 0.05})
    small_trainer(tmp_path / "out", trial, tracked, max_steps=2).train()
    kept = only(tmp_path / "archives")
    assert kept.key != "k" * 32
    assert kept.others["Name"] == "trial-7"
    assert kept.others["optimizer_id"] == "trial-7"


def test_nothing_but_the_archive_is_left_behind(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from trainer_torch.testing import small_trainer
from callback_comet import CometCallback

def state():
    handlers = {number: signal.getsignal(number) for number in (2, 15)}
    return dict(os.environ), sys.excepthook, list(sys.meta_path), handlers

before = state()
small_trainer(Path("out"), CometCallback(mode="OFFLINE", offline_directory="archives")).train()
assert state() == before
import comet_ml
assert comet_ml.get_running_experiment().ended
print("equal")
"""
    done = run_python("-c", script)
    assert done.stdout.endswith("equal\n"), done.stderr
    assert "before the following modules" not in done.stderr


def test_names_that_comet_would_cut_to_one_stay_apart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = small_trainer(tmp_path / "out", offline(tmp_path / "archives"))
    logs = {"n" * 120 + end: value for value, end in enumerate("abc", 100)}
    made.add_callback(At(3, lambda: made.log(logs)))
    made.train()
    found = {value: name for (name, _), value in only(tmp_path / "archives").curves().items()}
    assert set(logs.values()) <= found.keys()
    assert max(map(len, found.values())) == 100
    [line] = [message for message in caplog.messages if next(iter(logs)) in message]
    assert found[101] in line


def test_the_callback_can_be_pickled_before_during_and_after_a_training(tmp_path: Path) -> None:
    callback = offline(tmp_path / "archives")
    copies = pickled_copies(tmp_path / "out", callback)
    assert [(type(copy), copy.session) for copy in copies] == [(type(callback), None)] * 3
    assert all(copy.tracker.settings() for copy in copies)
