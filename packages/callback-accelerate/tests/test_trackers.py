from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
from recording import FileCallback, Stored, new_accelerator, new_training, told

from callback_accelerate import make_trackers


def test_values_reach_the_tracker_at_their_steps(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path)
    accelerator.log({"loss": 0.5}, step=0)
    accelerator.log({"loss": 0.25, "eval_accuracy": 1}, step=10)
    accelerator.end_training()
    assert Stored(tmp_path / "file").points == [
        ("train/loss", 0, 0.5),
        ("train/loss", 10, 0.25),
        ("eval/accuracy", 10, 1),
    ]


def test_a_loss_of_each_epoch_is_a_curve(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path)
    for epoch in range(2):
        accelerator.log({"train_loss": 1.0, "epoch": epoch}, step=epoch)
    accelerator.end_training()
    stored = Stored(tmp_path / "file")
    assert ("train/train_loss", 1, 1.0) in stored.points
    assert ("train/epoch", 1, 1) in stored.points


def test_the_configuration_becomes_parameters_without_secrets(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path, config={"lr": 0.1, "api_key": "abcdefgh"})
    accelerator.log({"loss": 1}, step=1)
    accelerator.end_training()
    (parameters,) = Stored(tmp_path / "file").of("parameters")
    assert parameters["lr"] == 0.1
    assert "abcdefgh" not in (tmp_path / "file").read_text()


def test_a_configuration_that_a_loop_would_refuse_is_recorded(tmp_path: Path) -> None:
    config = {"save_steps": "epoch", "logging_steps": -1, "output_dir": "elsewhere"}
    accelerator = new_training(tmp_path, config=config)
    accelerator.end_training()
    (parameters,) = Stored(tmp_path / "file").of("parameters")
    assert parameters == config


def test_parameters_after_the_first_log_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accelerator = new_training(tmp_path, config={"lr": 0.1})
    accelerator.log({"loss": 1}, step=1)
    for _ in range(2):
        accelerator.get_tracker("callback_file").store_init_configuration({"lr": 0.1, "late": 1})
    accelerator.end_training()
    assert ["late" in text for text in told(caplog)] == [True]


def test_trackers_share_a_journal_and_each_gets_everything_once(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path, "one", "two", "three")
    for step in range(3):
        accelerator.log({"loss": step}, step=step)
    accelerator.end_training()
    expected = [("train/loss", step, step) for step in range(3)]
    assert [Stored(tmp_path / name).points for name in ("one", "two", "three")] == [expected] * 3
    assert len(list((tmp_path / "out" / "tracking").iterdir())) == 1


def test_the_same_values_logged_again_are_recorded_again(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path, "one", "two")
    values = {"loss": 1.0}
    for step in range(3):
        accelerator.log(values, step=step)
    accelerator.end_training()
    assert [step for _, step, _ in Stored(tmp_path / "two").points] == [0, 1, 2]


def test_what_is_logged_to_one_tracker_reaches_all(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path, "one", "two")
    accelerator.get_tracker("callback_one").log({"a": 1.0}, step=5)
    accelerator.get_tracker("callback_two").log({"b": 2.0}, step=5)
    accelerator.log({"c": 3.0}, step=5)
    accelerator.end_training()
    expected = [("train/a", 5, 1.0), ("train/b", 5, 2.0), ("train/c", 5, 3.0)]
    assert [Stored(tmp_path / name).points for name in ("one", "two")] == [expected] * 2


def test_logs_without_any_step_are_numbered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accelerator = new_training(tmp_path, "one", "two")
    for value in (0.5, 0.5, 0.25):
        accelerator.log({"loss": value})
    accelerator.end_training()
    points = Stored(tmp_path / "two").points
    assert points == [("train/loss", 0, 0.5), ("train/loss", 1, 0.5), ("train/loss", 2, 0.25)]
    assert len(told(caplog)) == 1


def test_a_log_without_a_step_gets_the_last_one(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path)
    accelerator.log({"loss": 0.5}, step=7)
    accelerator.log({"test_accuracy": 1.0})
    accelerator.end_training()
    assert ("test/accuracy", 7, 1.0) in Stored(tmp_path / "file").points


def test_log_kwargs_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    accelerator = new_training(tmp_path)
    for step in range(2):
        accelerator.log({"loss": 1}, step=step, log_kwargs={"callback_file": {"commit": True}})
    accelerator.end_training()
    assert ["commit" in text for text in told(caplog)] == [True]


def test_the_tracker_is_found_by_its_name_and_knows_the_run(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path)
    accelerator.log({"loss": 1}, step=1)
    accelerator.end_training()
    callback = accelerator.get_tracker("callback_file", unwrap=True)
    assert callback.run_id == Stored(tmp_path / "file").runs[0]


def test_two_trackers_of_a_kind_have_two_names(tmp_path: Path) -> None:
    callbacks = [FileCallback(tmp_path / "one"), FileCallback(tmp_path / "two")]
    trackers = make_trackers(callbacks, str(tmp_path))
    assert [tracker.name for tracker in trackers] == ["callback_file", "callback_file_2"]


def test_the_run_has_the_name_that_is_given(tmp_path: Path) -> None:
    trackers = make_trackers([FileCallback(tmp_path / "file")], str(tmp_path), "one")
    accelerator = new_accelerator(trackers, tmp_path)
    accelerator.init_trackers("project")
    accelerator.end_training()
    assert [call["name"] for call in Stored(tmp_path / "file").of("open")] == ["one"]


def test_a_second_training_of_an_accelerator_is_a_second_run(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path)
    accelerator.log({"loss": 1}, step=1)
    accelerator.end_training()
    accelerator.trackers.clear()
    accelerator.init_trackers("project")
    accelerator.log({"loss": 2}, step=1)
    accelerator.end_training()
    stored = Stored(tmp_path / "file")
    assert stored.points == [("train/loss", 1, 1), ("train/loss", 1, 2)]
    assert len(stored.runs) == 2


def test_a_run_whose_accelerator_is_gone_ends_when_the_next_one_begins(tmp_path: Path) -> None:
    new_training(tmp_path).log({"loss": 1}, step=1)
    gc.collect()
    accelerator = new_training(tmp_path, "other")
    accelerator.log({"loss": 2}, step=1)
    assert [call["status"] for call in Stored(tmp_path / "file").of("close")] == ["finished"]
    accelerator.end_training()


def test_a_log_after_the_training_reaches_its_run(tmp_path: Path) -> None:
    accelerator = new_training(tmp_path)
    accelerator.log({"loss": 1}, step=1)
    accelerator.end_training()
    accelerator.log({"test_loss": 2}, step=1)
    callback = accelerator.get_tracker("callback_file", unwrap=True)
    callback.session.close()
    stored = Stored(tmp_path / "file")
    assert ("test/loss", 1, 2) in stored.points
    assert len(stored.runs) == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "finished"),
        (SystemExit(0), "finished"),
        (ValueError("x"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_end_training_in_a_finally_clause_tells_how_it_ended(
    error: BaseException | None, status: str, tmp_path: Path
) -> None:
    accelerator = new_training(tmp_path)

    def train() -> None:
        try:
            accelerator.log({"loss": 1}, step=1)
            if error is not None:
                raise error
        finally:
            accelerator.end_training()

    if error is None:
        train()
    else:
        with pytest.raises(type(error)):
            train()
    assert [call["status"] for call in Stored(tmp_path / "file").of("close")] == [status]


def test_what_a_tracker_raises_does_not_reach_the_script(tmp_path: Path) -> None:
    class Broken(FileCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError

    trackers = make_trackers(
        [Broken(tmp_path / "broken"), FileCallback(tmp_path / "file")], str(tmp_path)
    )
    accelerator = new_accelerator(trackers, tmp_path)
    accelerator.init_trackers("project")
    accelerator.log({"loss": 1}, step=1)
    accelerator.end_training()
    assert Stored(tmp_path / "file").points == [("train/loss", 1, 1)]


def test_pictures_and_tables_that_a_tracker_does_not_take_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accelerator = new_training(tmp_path)
    tracker = accelerator.get_tracker("callback_file")
    for step in range(2):
        tracker.log_images({"samples": [object()]}, step=step)
        tracker.log_table("answers", columns=["a"], data=[[1]], step=step)
    accelerator.end_training()
    assert [["samples" in text, "answers" in text] for text in told(caplog)] == [
        [True, False],
        [False, True],
    ]
