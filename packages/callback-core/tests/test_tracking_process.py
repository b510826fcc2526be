"""A process of its own that delivers: when it goes on, begins again and gives up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from run_for_tests import Run
from tracking_for_tests import (
    LET_GO,
    FileTracker,
    Training,
    calls,
    curve,
    eventually,
    expected,
    names_of_calls,
    points,
    processes_about,
    statuses,
    tracked,
    warned,
)

from callback_core.tracking import TrackerCallback
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery.process import MOST_RESTARTS, UPLOAD_LIMIT, follow

LIMIT: Final = 10.0
"""Seconds of a `Clock` that a call may take."""


class Clock:
    """A clock that goes on with each look of the process, and only while a call says so.

    So no test depends on how busy the machine is.

    Attributes:
        now: The time.
        until: When it stands still.
        then: What is done once it does.
    """

    def __init__(self) -> None:
        self.now = self.until = 0.0
        self.then: Callable[[], None] | None = None

    def sleep(self, _: float) -> None:
        """Take the place of the pause between two looks."""
        time.sleep(0.001)
        if self.now < self.until:
            self.now += 1
        elif self.until and self.then is not None:
            then, self.then = self.then, None
            then()

    def spend(self, seconds: float) -> None:
        """Let so much time go by, as the delivering thread."""
        self.until = self.now + seconds
        while self.now < self.until:
            if LET_GO.wait(0.001):
                raise TimeoutError("the test has ended")


class Slow(FileTracker):
    """Needs time of a clock for its calls."""

    clock: Clock
    takes: dict[str, float]

    def _write(self, call: str, points: Any = (), **what: Any) -> None:
        if call in self.takes:
            self.clock.spend(self.takes[call])
        super()._write(call, points, **what)


class Restarted(Exception):
    """The process would have begun again, with these arguments."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("callback_core.tracking.delivery.process.sleep", clock.sleep)
    for module in ("delivery.process", "calls"):
        monkeypatch.setattr(f"callback_core.tracking.{module}.monotonic", lambda: clock.now)

    def execv(_: str, arguments: list[str]) -> None:
        raise Restarted(arguments)

    monkeypatch.setattr(os, "execv", execv)
    return clock


def slow(run: Run, clock: Clock, takes: dict[str, float], **options: Any) -> Consumer:
    consumer = run.consumer(Slow, limits={"batch_size": 1}, **options)
    consumer.tracker.clock, consumer.tracker.takes = clock, takes  # type: ignore[attr-defined]
    return consumer


def test_what_a_dead_training_has_left_is_delivered_and_closed_as_failed(
    run: Run, clock: Clock
) -> None:
    """However long all takes, as long as each call comes back."""
    for step in range(1, 11):
        run.log(step, a=step)
    every = dict.fromkeys(("open", "log_parameters", "log_metrics", "close"), LIMIT / 2)
    assert follow(slow(run, clock, every), 0, LIMIT, 0, ["--follow", "1"]) == 0
    assert clock.now > MOST_RESTARTS * LIMIT
    assert curve(run.out, "train/a") == [(step, step) for step in range(1, 11)]
    assert statuses(run.out) == ["failed"]


def test_it_gives_up_where_the_training_is_dead_and_nothing_comes_on(
    run: Run, clock: Clock
) -> None:
    run.log(1, a=1)
    consumer = run.consumer(fail="open")
    clock.until = 1e6
    assert follow(consumer, 0, LIMIT, 0, ["--follow", "1"]) == 1
    consumer.abandon()
    assert MOST_RESTARTS * LIMIT < clock.now < MOST_RESTARTS * LIMIT + 3


def test_it_waits_for_a_training_that_logs_nothing_for_long(run: Run, clock: Clock) -> None:
    def log_and_end() -> None:
        run.log(2, a=2)
        run.end()

    run.log(1, a=1)
    clock.until, clock.then = 100 * LIMIT, log_and_end
    assert follow(slow(run, clock, {}), os.getppid(), LIMIT, 0, ["--follow", "1"]) == 0
    assert [point.step for point in points(run.out)] == [1, 2]
    assert statuses(run.out) == ["finished"]


def test_it_begins_again_where_a_call_does_not_come_back(
    run: Run, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    run.log(1, a=1)
    consumer = slow(run, clock, {"log_metrics": 1e6})
    with pytest.raises(Restarted) as restarted:
        follow(consumer, os.getppid(), LIMIT, 1, ["--follow", "1"])
    assert restarted.value.args[0][-1] == "--restarts=2"
    assert LIMIT < clock.now < 2 * LIMIT
    assert "log_metrics" in warned(caplog)[-1]


def test_it_gives_up_where_it_began_again_often_enough(run: Run, clock: Clock) -> None:
    consumer = slow(run, clock, {"open": 1e6})
    assert follow(consumer, os.getppid(), LIMIT, MOST_RESTARTS, ["--follow", "1"]) == 1
    consumer.abandon()


def test_an_upload_may_take_longer_than_any_other_call(run: Run, clock: Clock) -> None:
    run.save(1, "file")
    run.end()
    uploading = slow(run, clock, {"log_files": UPLOAD_LIMIT / 2}, checkpoints=True)
    assert follow(uploading, os.getppid(), LIMIT, 0, ["--follow", "1"]) == 0
    assert names_of_calls(run.out)[-2:] == ["log_files", "close"]


@pytest.mark.parametrize("ends", [True, False])
def test_it_gives_up_one_that_is_not_configured_only_when_training_ends(
    run: Run, clock: Clock, ends: bool
) -> None:
    def later() -> None:
        assert eventually(lambda: calls(run.out, "open", failed=True))
        if not ends:
            run.up.touch()
            for step in (1, 2):  # the second is not taken before the first attempt is over
                run.log(step, a=step)
                assert eventually(lambda: len(points(run.out)) == step)  # noqa: B023
        run.end()

    clock.until, clock.then = 1.0, later
    consumer = run.consumer(fail="open", error="NotConfigured")
    assert follow(consumer, os.getppid(), LIMIT, 0, ["--follow", "1"]) == (1 if ends else 0)
    consumer.abandon()
    assert statuses(run.out) == ([] if ends else ["finished"])


class Local:
    """Has a tracker that no other process can import."""

    @staticmethod
    def tracker(path: str) -> FileTracker:
        class Hidden(FileTracker):
            pass

        return Hidden(path)


def test_a_tracker_that_no_other_process_can_make_is_refused_at_once(out: Path) -> None:
    for tracker in (FileTracker(str(out), bound=True), Local.tracker(str(out))):
        with pytest.raises(ValueError, match=type(tracker).__name__):
            TrackerCallback(tracker, delivery="process")


def test_a_run_that_the_user_opened_is_delivered_to_by_a_thread_which_is_warned_of(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Training(tmp_path, [tracked(out, delivery="process", adopts="the user's")]).train(1)
    assert {call["pid"] for call in calls(out)} == {os.getpid()}
    assert curve(out) == expected(1)
    assert len(warned(caplog)) == 1


def test_at_the_limit_the_process_is_ended_and_the_warning_names_its_log(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [tracked(out, delivery="process", fail="open", flush_limit=0.1)])
    training.begin()
    training.step()
    assert eventually(lambda: calls(out, "open", failed=True))
    training.end()
    assert processes_about(tmp_path) == []
    [log] = tmp_path.glob("tracking/*/*.log")
    [line] = warned(caplog)
    assert "1 points" in line
    assert str(log) in line
    assert "ConnectionError: open fails" in log.read_text("utf-8")


def test_a_process_finds_the_modules_that_this_one_does(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_the_script.py").write_text(
        "from tracking_for_tests import FileTracker\nclass Beside(FileTracker):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    from beside_the_script import Beside  # type: ignore[import-not-found]

    Training(tmp_path, [tracked(out, Beside, delivery="process")]).train(1)
    assert curve(out) == expected(1)
