"""Checkpoints that are kept for a tracker: whole until they are sent, and gone afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from run_for_tests import Run, tries
from tracking_for_tests import (
    Training,
    calls,
    curve,
    expected,
    names_of_calls,
    points,
    statuses,
    tracked,
    warned,
)

from callback_core.tracking.run_folder import RunFolder


def uploads(out: Path) -> list[tuple[str, int, dict[str, str]]]:
    return [(call["name"], call["step"], call["files"]) for call in calls(out, "log_files")]


def test_a_checkpoint_is_kept_whatever_becomes_of_its_directory(tmp_path: Path, out: Path) -> None:
    """One that is saved once more is sent as it is then."""
    up = tmp_path / "up"
    tracker = tracked(out, checkpoints=True, fail="open", until=str(up))
    training = Training(tmp_path / "run", [tracker])
    training.begin()
    training.step()
    shutil.rmtree(training.save())
    training.step()
    path = training.save()
    (path / "weights").unlink()
    (path / "weights").write_text("saved again", "utf-8")
    training.fire("on_save", checkpoint_dir=str(path))
    shutil.rmtree(path)
    up.touch()
    training.end()
    assert uploads(out)[0] == ("checkpoint-1", 1, {"weights": "of step 1"})
    assert uploads(out)[-1] == ("checkpoint-2", 2, {"weights": "saved again"})
    assert [*tmp_path.rglob("weights")] == []


def test_a_checkpoint_that_is_saved_twice_before_it_is_sent_is_sent_twice_and_not_missed(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    up = tmp_path / "up"
    training = Training(
        tmp_path / "run", [tracked(out, checkpoints=True, fail="open", until=str(up))]
    )
    training.begin()
    training.step()
    path = training.save()
    (path / "weights").write_text("saved again", "utf-8")
    training.fire("on_save", checkpoint_dir=str(path))
    up.touch()
    training.end()
    assert [(name, step) for name, step, _ in uploads(out)] == [("checkpoint-1", 1)] * 2
    assert uploads(out)[-1][2] == {"weights": "saved again"}
    assert not any("checkpoint-1" in line for line in warned(caplog))


def test_where_the_loop_does_not_say_where_the_checkpoint_is_it_is_that_of_the_step(
    tmp_path: Path, out: Path
) -> None:
    training = Training(tmp_path, [tracked(out, checkpoints=True)])
    training.begin()
    training.step()
    (tmp_path / "checkpoint-1").mkdir()
    training.fire("on_save")
    training.end()
    assert uploads(out) == [("checkpoint-1", 1, {})]


def test_nothing_is_kept_for_a_tracker_that_takes_no_checkpoints(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [tracked(out)])
    training.begin()
    training.step()
    training.save()
    assert [*tmp_path.glob("tracking/*/files")] == []
    training.end()
    assert uploads(out) == []


def test_a_checkpoint_that_cannot_be_kept_costs_no_more_than_itself(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [tracked(out, checkpoints=True)])
    training.begin()
    for _ in range(5):
        training.step()
        training.fire("on_save", checkpoint_dir=str(tmp_path / "gone"))
    training.end()
    assert curve(out) == expected(1, 2, 3, 4, 5)
    assert statuses(out) == ["finished"]
    assert len(warned(caplog)) == 1
    assert str(tmp_path / "gone") in caplog.text
    assert "Traceback" in caplog.text


def test_an_upload_is_delivered_in_its_place_and_its_copy_removed(run: Run) -> None:
    run.log(1, a=1)
    run.save(1, "file", "other")
    run.log(2, a=1)
    run.deliver(checkpoints=True)
    assert names_of_calls(run.out)[2:] == ["log_metrics", "log_files", "log_metrics"]
    assert uploads(run.out) == [("checkpoint-1", 1, {"weights": "w"})]
    assert [path.name for path in run.folder.path.glob("files/*/*")] == ["checkpoint-1"]


def test_a_checkpoint_whose_copy_is_gone_is_named_and_all_else_is_sent(run: Run) -> None:
    run.save(1, "file")
    run.log(2, a=1)
    run.end()
    shutil.rmtree(run.folder.path / "files" / "file" / "checkpoint-1")
    consumer = run.deliver(checkpoints=True)
    assert consumer.done
    assert uploads(run.out) == []
    assert len(points(run.out)) == 1
    assert list(consumer.run.progress.left_out) == ["checkpoint-1"]


def test_an_upload_that_fails_is_tried_until_it_works_and_what_follows_waits(run: Run) -> None:
    run.save(1, "file")
    run.log(2, a=1)
    run.end()
    consumer = run.consumer(checkpoints=True, fail="log_files", times=20)
    assert len(tries(consumer)) == 20
    assert names_of_calls(run.out)[2:] == ["log_files", "log_metrics", "close"]
    assert consumer.run.progress.left_out == {}


def rewrite(file: Path, content: bytes) -> None:
    """Overwrite a file in place, as `open(..., "w")` and `torch.save` do."""
    with file.open("r+b") as opened:
        opened.truncate()
        opened.write(content)


def test_a_small_file_that_is_overwritten_after_the_save_is_delivered_as_it_was(
    tmp_path: Path, out: Path
) -> None:
    up = tmp_path / "up"
    training = Training(tmp_path, [tracked(out, checkpoints=True, fail="open", until=str(up))])
    training.begin()
    training.step()
    path = training.save()
    before = (path / "weights").read_text("utf-8")
    rewrite(path / "weights", b"of another step")
    up.touch()
    training.end()
    [upload] = calls(out, "log_files")
    assert upload["files"] == {"weights": before}


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_large_file_that_is_overwritten_after_the_save_is_not_delivered_and_named(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, more: int
) -> None:
    up = tmp_path / "up"
    training = Training(tmp_path, [tracked(out, checkpoints=True, fail="open", until=str(up))])
    training.begin()
    training.step()
    path = tmp_path / "checkpoint-1"
    path.mkdir()
    (path / "large").write_bytes(b"a" * 2**21)
    training.save()
    rewrite(path / "large", b"b" * (2**21 + more))
    up.touch()
    training.end()
    assert calls(out, "log_files") == []
    assert "checkpoint-1" in warned(caplog)[-1]
    assert "large" in warned(caplog)[-1]


def test_a_large_file_that_is_deleted_after_the_save_is_delivered(
    tmp_path: Path, out: Path
) -> None:
    up = tmp_path / "up"
    training = Training(tmp_path, [tracked(out, checkpoints=True, fail="open", until=str(up))])
    training.begin()
    training.step()
    path = tmp_path / "checkpoint-1"
    path.mkdir()
    (path / "large").write_bytes(b"a" * 2**21)
    training.save()
    shutil.rmtree(path)
    up.touch()
    training.end()
    [upload] = calls(out, "log_files")
    assert upload["files"]["large"] == "a" * 2**21


def test_arguments_and_logs_that_change_later_are_delivered_as_they_were(
    tmp_path: Path, out: Path
) -> None:
    up = tmp_path / "up"
    training = Training(tmp_path, [tracked(out, fail="open", until=str(up))])
    schedule = {"warmup": [1, 2]}
    training.args.__dict__["lr_scheduler_kwargs"] = schedule
    training.args.to_dict = lambda: {"lr_scheduler_kwargs": schedule}  # type: ignore[method-assign]
    training.fire("on_train_begin")
    schedule["warmup"].append(3)
    training.fire("on_epoch_begin")
    logs = {"loss": 0.5}
    training.fire("on_log", logs=logs)
    logs["loss"] = 0.25
    up.touch()
    training.end()
    [call] = calls(out, "log_parameters")
    assert call["parameters"]["lr_scheduler_kwargs"] == {"warmup": [1, 2]}
    assert curve(out) == [(0, 0.5)]


def test_a_checkpoint_that_is_saved_after_the_end_is_none_of_the_run_s(
    tmp_path: Path, out: Path
) -> None:
    training = Training(tmp_path, [tracked(out, checkpoints=True)]).train(1)
    [folder] = RunFolder.all(tmp_path)
    before = folder.journal.read_bytes()
    training.save()
    assert folder.journal.read_bytes() == before
    assert calls(out, "log_files") == []
