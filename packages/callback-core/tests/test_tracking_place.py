"""Where a training is recorded: at once, elsewhere where it must be, and beside earlier runs."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from run_for_tests import Run
from tracking_for_tests import (
    Model,
    Training,
    calls,
    curve,
    expected,
    points,
    script,
    statuses,
    tracked,
    warned,
)

from callback_core import TrainerState
from callback_core.tracking.run_folder import RunFolder


def records(folder: Path) -> list[dict[str, Any]]:
    """Return what is written in the only journal, byte for byte whole."""
    [run] = RunFolder.all(folder)
    return [json.loads(line) for line in run.journal.read_bytes().splitlines()]


def test_what_happens_is_in_the_journal_when_its_event_returns(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [tracked(out, fail="open", delivery="inline", flush_limit=0)])
    training.handler.model = Model()
    training.begin()
    [begin] = records(tmp_path)
    assert (begin["kind"], begin["step"], begin["resumed"]) == ("begin", 0, False)
    assert begin["arguments"]["learning_rate"] == 0.1
    assert begin["model_config"]["layers"] == 2
    training.state.epoch = 0.5
    training.step(loss=0.5, bad=math.nan, worse=-math.inf, list=[1], note="a\nb")
    _, logs = records(tmp_path)
    assert (logs["kind"], logs["step"], logs["epoch"]) == ("logs", 1, 0.5)
    assert logs["logs"] == {
        "loss": 0.5,
        "bad": {"__float__": "NaN"},
        "worse": {"__float__": "-Infinity"},
        "note": "a\nb",
    }
    assert list(logs["left_out"]) == ["list"]
    training.save()
    assert [record["kind"] for record in records(tmp_path)] == ["begin", "logs", "saved"]
    training.end(KeyboardInterrupt())
    end = records(tmp_path)[-1]
    assert (end["kind"], end["step"], end["status"]) == ("end", 1, "interrupted")


def test_an_earlier_run_that_is_not_delivered_is_named_in_a_line(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for many in (0, 1, 2):
        caplog.clear()
        away = tracked(out, fail="open", flush_limit=0, delivery="inline")
        training = Training(tmp_path, [away])
        training.begin()
        named = [line for line in warned(caplog) if str(tmp_path) in line]
        assert len(named) == min(many, 1)
        assert all(f" {many} " in line for line in named)
        if many == 1:
            assert RunFolder.all(tmp_path)[0].run in named[0]
        training.end()


def test_a_run_that_was_killed_is_named_though_all_of_it_was_sent(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has closed it."""
    run.log(1, a=1)
    run.deliver()
    Training(run.folder.output_dir, [tracked(run.out)]).train(1)
    [line] = warned(caplog)
    assert run.folder.run in line


@pytest.mark.parametrize("closed", [True, False])
def test_neither_one_that_is_delivered_nor_one_that_is_running_is_named(
    run: Run, caplog: pytest.LogCaptureFixture, closed: bool
) -> None:
    if closed:
        run.end()
    run.deliver()
    if closed:
        Training(run.folder.output_dir, [tracked(run.out)]).train(1)
    else:
        with run.recorded():
            Training(run.folder.output_dir, [tracked(run.out)]).train(1)
    assert warned(caplog) == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


def test_without_an_output_dir_that_can_be_written_it_is_kept_elsewhere_and_said(
    tmp_path: Path, out: Path, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "taken").write_text("no directory", "utf-8")
    Training(tmp_path / "taken", [tracked(out)]).train(2)
    assert curve(out) == expected(1, 2)
    [line] = warned(caplog)
    assert str(tmp_path / "taken") in line
    assert str(temporary) in line


def test_a_run_that_was_kept_elsewhere_goes_on_in_its_place_once_that_can_be_written(
    run: Run, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run.log(1, loss=0.5)
    run.deliver()
    journal = run.folder.journal
    journal.rename(journal.with_suffix(".kept"))
    journal.mkdir()
    for step in (1, 2):
        caplog.clear()
        tracker = tracked(run.out)
        tracker.load_state_dict({"run": "run", "run_id": None})
        state = TrainerState(max_steps=9, global_step=step)
        Training(run.folder.output_dir, [tracker], state).train(1)
        assert ["temporary" in line for line in warned(caplog)] == [True] * (step == 1)
        if step == 1:
            journal.rmdir()
            journal.with_suffix(".kept").rename(journal)
    assert tracker.state_dict()["run"] == "run"
    assert run.records()[-1].step == 3


def test_without_any_place_to_write_to_training_goes_on(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    (tmp_path / "taken").write_text("no directory", "utf-8")
    Training(tmp_path / "taken", [tracked(out)]).train(5)
    assert calls(out) == []
    assert len([line for line in warned(caplog) if "on_train_begin" in line]) == 1


@pytest.mark.parametrize("room", [True, False])
def test_a_full_disk_costs_only_what_it_never_takes_and_the_run_is_closed(
    tmp_path: Path, room: bool
) -> None:
    done = script(
        "import resource\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "path, room = Path(sys.argv[1]), sys.argv[2] == 'True'\n"
        "tracker = tracked(Path(os.devnull))\n"
        "training = Training(path, [tracker])\n"
        "training.begin()\n"
        "for _ in range(5): training.step()\n"
        "largest = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "[journal] = path.glob('tracking/*/*.jsonl')\n"
        "size = journal.stat().st_size + 20\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size, largest[1]))\n"
        "for _ in range(5): training.step()\n"
        "if room: resource.setrlimit(resource.RLIMIT_FSIZE, largest)\n"
        "training.end()\n"
        "consumer = tracker.member.delivery.consumer\n"
        "print(consumer.done, consumer.run.progress.status)\n",
        tmp_path,
        str(room),
    )
    assert (done.returncode, done.stdout) == (0, "True finished\n"), done.stderr
    kinds = [record["kind"] for record in records(tmp_path)]
    assert kinds == ["begin", *["logs"] * (10 if room else 5), *["end"] * room]
    assert done.stderr.count("6 records") == (not room)


def test_where_its_progress_cannot_be_noted_this_is_said_once_and_all_is_sent(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """So it is where it cannot be noted how the tracker is made."""
    for file in ("file.progress.json", "file.tracker.json"):
        (run.folder.path / file / "in the way").mkdir(parents=True)
    tracker = tracked(run.out, delivery="inline")
    tracker.load_state_dict({"run": "run", "run_id": None})
    training = Training(run.folder.output_dir, [tracker], TrainerState(max_steps=9, global_step=1))
    training.train(3)
    assert curve(run.out) == expected(2, 3, 4)
    assert statuses(run.out) == ["finished"]
    assert len(warned(caplog)) == 2
    assert all("file" in line for line in warned(caplog))


def test_one_whose_progress_could_not_be_noted_goes_on_from_memory(run: Run) -> None:
    (run.folder.path / "file.progress.json" / "in the way").mkdir(parents=True)
    consumer = run.consumer()
    for step in (1, 2):
        run.log(step, a=1)
        consumer.deliver()
    run.end()
    consumer.deliver()
    assert consumer.done
    assert [point.step for point in points(run.out)] == [1, 2]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_costs_one_warning_and_no_point(
    tmp_path: Path,
    out: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    def lockf(file: int, flags: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.lockf", lockf)
    Training(tmp_path, [tracked(out)]).train(2)
    assert curve(out) == expected(1, 2)
    assert statuses(out) == ["finished"]
    assert len(RunFolder.all(tmp_path)) == 1
    [warning] = warned(caplog)
    assert os.strerror(code) in warning


def test_a_loop_s_output_directory_may_begin_with_a_tilde(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    training = Training(Path("~/run"), [tracked(out)])
    training.begin()
    training.step(loss=0.5)
    training.end()
    assert len(RunFolder.all(tmp_path / "home" / "run")) == 1
    assert not (tmp_path / "~").exists()
