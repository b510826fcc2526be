"""`Session`: what a tracker's package and other callbacks may use of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_for_tests import Run
from tracking_for_tests import (
    Training,
    calls,
    curve,
    eventually,
    expected,
    points,
    runs,
    statuses,
    tracked,
)

from callback_core import TrainerState
from callback_core.tracking import Point, Session, consumer, history, session_of
from callback_core.tracking.journal import Record, read


def begun(tmp_path: Path, *callbacks: Any) -> tuple[Training, Session]:
    """Return a training after its first step, and its session."""
    training = Training(tmp_path, [*callbacks])
    training.begin()
    training.step()
    session = session_of(training.state)
    assert session is not None
    return training, session


def test_what_is_logged_goes_to_all_trackers_at_the_present_step(
    tmp_path: Path, out: Path, other: Path
) -> None:
    training, session = begun(tmp_path, tracked(out), tracked(other, name="other"))
    session.log({"power": 3.0})
    training.step()
    session.log({"power": 4.0}, step=1)
    training.end()
    assert curve(out, "train/power") == curve(other, "train/power") == [(1, 3.0), (1, 4.0)]
    assert curve(out) == expected(1, 2)
    assert calls(out, "log_summary") == []


def test_a_value_that_a_training_has_one_of_is_a_summary(tmp_path: Path, out: Path) -> None:
    training, session = begun(tmp_path, tracked(out))
    session.log({"energy": 3.0}, summary=True)
    training.end()
    [call] = calls(out, "log_summary")
    assert [Point(*point).name for point in call["points"]] == ["train/energy"]


def test_a_log_after_the_end_opens_each_run_again(tmp_path: Path, out: Path, other: Path) -> None:
    training, session = begun(tmp_path, tracked(out), tracked(other, name="other"))
    training.end()
    session.log({"power": 3.0})
    for path in (out, other):
        assert eventually(lambda: len(statuses(path)) == 2)  # noqa: B023
        assert statuses(path) == ["finished"] * 2
        assert curve(path, "train/power") == [(1, 3.0)]
        assert len(runs(path)) == 1


def test_status_and_ids_are_known_as_soon_as_they_are(
    tmp_path: Path, out: Path, other: Path
) -> None:
    callback = tracked(out)
    training, session = begun(tmp_path, callback, tracked(other, hang="open", flush_limit=0))
    assert callback.session is session
    assert session.status is None
    assert eventually(lambda: session.run_ids["file"] is not None)
    [run_id] = runs(out)
    assert session.run_ids == {"file": run_id, "file-2": None}
    training.end(RuntimeError("no"))
    assert session.status == "failed"


def test_closing_a_session_ends_it_for_all_trackers(tmp_path: Path, out: Path, other: Path) -> None:
    training, session = begun(tmp_path, tracked(out), tracked(other))
    session.close("interrupted")
    assert statuses(out) == statuses(other) == ["interrupted"]
    training.end()
    assert statuses(out) == statuses(other) == ["interrupted"]


def test_logs_of_one_step_are_all_kept_once_each(tmp_path: Path, out: Path, other: Path) -> None:
    training = Training(tmp_path, [tracked(out), tracked(other)])
    training.begin()
    for loss in (0.5, 0.5, 0.25):
        training.log(loss=loss)
    training.end()
    assert curve(out) == curve(other) == [(0, 0.5), (0, 0.5), (0, 0.25)]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets from which a journal is read to learn its history."""
    offsets: list[int] = []

    def counted(path: Path, offset: int = 0) -> Iterator[Record]:
        offsets.append(offset)
        return read(path, offset)

    monkeypatch.setattr(history, "read", counted)
    return offsets


def test_a_delivery_reads_the_journal_once_before_it_delivers(run: Run, passes: list[int]) -> None:
    run.log(1, a=1)
    run.log(2, a=2)
    run.end()
    assert run.deliver().done
    assert passes == [0]
    assert len(points(run.out)) == 2


def test_an_evaluation_after_the_end_does_not_read_the_journal_from_its_start(
    tmp_path: Path, out: Path, passes: list[int]
) -> None:
    training = Training(tmp_path, [tracked(out)]).train(3)
    passes.clear()
    for number, loss in enumerate((0.5, 0.25), 2):
        training.log(eval_loss=loss)
        assert eventually(lambda: len(statuses(out)) == number)  # noqa: B023
    assert passes == []
    assert curve(out, "eval/loss") == [(3, 0.5), (3, 0.25)]


def test_a_resume_parses_the_journal_once(run: Run, passes: list[int]) -> None:
    """Then it reads what it replaces, to know what the tracker has of it."""
    for step in range(1, 40):
        run.log(step, a=step)
        if step == 30:
            run.save(step)
    run.deliver()
    run.begin(30)
    run.log(31, a=31)
    run.end()
    passes.clear()
    run.deliver()
    assert passes.count(0) == 1
    assert len(passes) == 2


def test_a_training_reads_each_record_once_to_deliver_it(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the run is, a log at its end costs what one at its beginning does."""
    delivered: list[int] = []

    def counted(path: Path, offset: int = 0) -> Iterator[Record]:
        for record in read(path, offset):
            delivered.append(record.start)
            yield record

    monkeypatch.setattr(consumer, "read", counted)
    Training(tmp_path, [tracked(out, delivery="inline")]).train(50)
    assert len(delivered) == len({*delivered}) == 52  # with the begin and the end


def test_a_training_without_a_tracker_has_no_session(tmp_path: Path) -> None:
    assert session_of(TrainerState()) is None
