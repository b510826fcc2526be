"""Delivering a journal: batches, retries, rejected points, hanging and failing trackers."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest
from tracking_for_tests import (
    Choosy,
    FileTracker,
    Keeping,
    Rewinding,
    Spoilt,
    WithoutKey,
    calls,
    eventually,
    names_of_calls,
    points,
    statuses,
    stored,
)

from callback_core.tracking import Limits, Point, Tracker
from callback_core.tracking.batches import MOST_TRIES, Abandoned
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery import InlineDelivery, ThreadDelivery
from callback_core.tracking.folder import RunFolder
from callback_core.tracking.journal import Journal, read


class Run:
    """A run whose journal is written by hand."""

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.of(path, "run")
        self.folder.path.mkdir(parents=True)
        self.out = path / "out.jsonl"
        self.begin()

    def write(self, kind: str, step: int = 0, **content: Any) -> None:
        journal = Journal(self.folder.journal)
        journal.append({"kind": kind, "step": step, "time": float(step), **content})
        journal.close()

    def begin(self, step: int = 0, **arguments: Any) -> None:
        self.write("begin", step, resumed=step > 0, arguments=arguments, model_config={})

    def log(self, step: int, **values: Any) -> None:
        self.write("logs", step, epoch=0.5, logs=values)

    def end(self, status: str = "finished") -> None:
        self.write("end", status=status)

    def tracker(self, kind: type[FileTracker] = FileTracker, **options: Any) -> FileTracker:
        return kind(str(self.out), **options)

    def consumer(self, kind: type[FileTracker] = FileTracker, **options: Any) -> Consumer:
        return Consumer(self.tracker(kind, **options), self.folder, "file")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def tries(consumer: Consumer, most: int = 50) -> list[str]:
    """Deliver until it works, and return what was raised."""
    errors = []
    for _ in range(most):
        try:
            consumer.deliver()
            break
        except Exception as error:
            errors.append(str(error))
    return errors


def test_a_run_is_opened_told_its_parameters_and_points_and_closed(run: Run) -> None:
    run.log(1, loss=0.5, eval_loss=1, train_loss=3.0)
    run.end("interrupted")
    consumer = run.consumer()
    consumer.deliver()
    assert consumer.done
    assert names_of_calls(run.out) == [
        "open",
        "log_parameters",
        "log_metrics",
        "log_metrics",
        "close",
    ]
    assert points(run.out) == [
        Point("train/loss", 0.5, 1, 1.0, 0.5),
        Point("eval/loss", 1, 1, 1.0, 0.5),
        Point("train/train_loss", 3.0, 1, 1.0, 0.5),
    ]
    assert statuses(run.out) == ["interrupted"]


def test_what_is_delivered_is_not_delivered_again_by_the_next(run: Run) -> None:
    run.log(1, loss=0.5)
    first = run.consumer()
    first.deliver()
    run.log(2, loss=0.25)
    first.deliver()
    first.abandon()
    run.log(3, loss=0.1)
    run.end()
    run.consumer().deliver()
    assert [point.step for point in points(run.out)] == [1, 2, 3]
    opened = [call["run"] for call in calls(run.out) if call["call"] == "open"]
    assert len(opened) == 2
    assert len(set(opened)) == 1
    assert names_of_calls(run.out).count("log_parameters") == 1


def test_parameters_are_told_again_where_a_resumed_training_has_others(run: Run) -> None:
    run.begin(1, lr=1)
    run.begin(1, lr=1)
    run.begin(1, lr=2)
    run.consumer().deliver()
    told = [call["parameters"] for call in calls(run.out) if call["call"] == "log_parameters"]
    assert told[-1] == {"lr": 2}


def test_points_come_in_batches_that_fit_and_names_and_values_too(run: Run) -> None:
    run.begin(0, long="123456789", a=1, b=2, c=3)
    run.log(1, **{"a b": 1, "c": float(2), "d": 3, "nan": {"__float__": "NaN"}, "text": "x"})
    run.write("logs", 2, logs={"e": 1, "much_too_long": 1}, left_out={"f": "a list, not a number"})
    run.end()
    consumer = run.consumer(Choosy)
    consumer.deliver()
    batches = [call["points"] for call in calls(run.out) if call["call"] == "log_metrics"]
    assert [len(batch) for batch in batches] == [3, 2]
    assert [p.name for p in points(run.out)] == [
        "train/a_b",
        "train/c",
        "train/d",
        "train/e",
        "train/much_t",
    ]
    assert consumer.progress.left_out == {
        "long": "cut to 8 characters",
        "c": "left out: more than 3 parameters",
        "nan": "it was nan at step 1",
        "text": "it is text",
        "f": "it is a list, not a number",
        "much_too_long": "its name is cut to train/much_t",
    }


def test_a_tracker_that_can_gets_text_and_what_is_not_finite(run: Run) -> None:
    class Able(FileTracker):
        limits = Limits(text=True)

    run.log(1, text="ü", inf={"__float__": "Infinity"})
    run.consumer(Able).deliver()
    assert [(p.name, p.value) for p in points(run.out)] == [
        ("train/inf", float("inf")),
        ("train/text", "ü"),
    ]


def test_a_rejected_point_costs_only_itself(run: Run) -> None:
    run.log(1, a=1, bad=2, b=3)
    run.log(2, a=1)
    run.end()
    consumer = run.consumer(Choosy)
    consumer.deliver()
    assert consumer.done
    assert stored(run.out, tells_duplicates=False) == [
        ("train/a", 1, 1),
        ("train/b", 1, 3),
        ("train/a", 2, 1),
    ]
    assert consumer.progress.left_out == {"train/bad": "rejected: no such name"}


def test_a_point_that_always_fails_is_passed_over_once_others_do_not(run: Run) -> None:
    run.log(1, a=1, bad=2, b=3)
    run.log(2, a=4, bad=5, b=6)
    run.end()
    consumer = run.consumer(Spoilt)
    assert tries(consumer) == ["no such name"] * (MOST_TRIES - 1)
    assert consumer.done
    assert sorted(stored(run.out, tells_duplicates=False)) == sorted(
        [("train/a", 1, 1), ("train/b", 1, 3), ("train/a", 2, 4), ("train/b", 2, 6)]
    )
    assert consumer.progress.left_out == {"train/bad": "failed: RuntimeError: no such name"}


def test_a_service_that_is_down_for_long_loses_nothing(run: Run, tmp_path: Path) -> None:
    run.log(1, a=1, b=2)
    run.end()
    consumer = run.consumer(fail="log_metrics", until=str(tmp_path / "up"))
    assert len(tries(consumer, most=3 * MOST_TRIES)) == 3 * MOST_TRIES
    assert (consumer.pending(), consumer.done) == (2, False)
    (tmp_path / "up").touch()
    consumer.deliver()
    assert consumer.done
    assert [p.name for p in points(run.out)] == ["train/a", "train/b"]
    assert consumer.progress.left_out == {}


def test_a_retry_goes_on_where_it_was(run: Run) -> None:
    class Stutters(Choosy):
        error = RuntimeError
        failed = 0

        def log_metrics(self, points: Sequence[Point]) -> None:
            if points[0].step == 3 and self.failed < 2:
                self.failed += 1
                raise RuntimeError("not now")
            super().log_metrics(points)

    for step in range(1, 6):
        run.log(step, a=step, b=step)
    consumer = run.consumer(Stutters)
    tries(consumer)
    assert [(p.name, p.step) for p in points(run.out)] == [
        (name, step) for step in range(1, 6) for name in ("train/a", "train/b")
    ]


def test_parameters_that_always_fail_do_not_hold_up_the_points(run: Run) -> None:
    run.log(1, a=1)
    run.end()
    consumer = run.consumer(fail="log_parameters")
    assert len(tries(consumer)) == MOST_TRIES - 1
    assert consumer.done
    assert [p.name for p in points(run.out)] == ["train/a"]
    assert consumer.progress.left_out == {
        "parameters": "failed: ConnectionError: the service is down"
    }


def test_parameters_are_tried_again_before_the_run_is_closed(run: Run, tmp_path: Path) -> None:
    run.begin(0, lr=1)
    run.log(1, a=1)
    consumer = run.consumer(fail="log_parameters", until=str(tmp_path / "up"))
    tries(consumer)
    (tmp_path / "up").touch()
    run.end()
    consumer.deliver()
    assert names_of_calls(run.out)[-2:] == ["log_parameters", "close"]
    assert consumer.progress.left_out == {}


def test_a_damaged_line_is_reported_and_passed_over(run: Run) -> None:
    with run.folder.journal.open("ab") as file:
        file.write(b"\x00\x00\n")
    run.log(1, a=1)
    consumer = run.consumer()
    consumer.deliver()
    assert [p.name for p in points(run.out)] == ["train/a"]
    assert list(consumer.progress.left_out.values()) == ["a damaged line"]


def test_progress_that_cannot_be_written_does_not_stop_delivery(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RunFolder, "write_progress", full)
    run.log(1, a=1)
    consumer = run.consumer()
    consumer.deliver()
    run.log(2, a=1)
    run.end()
    consumer.deliver()
    assert consumer.done
    assert [p.step for p in points(run.out)] == [1, 2]
    assert caplog.text.count("No space left") == 1


def test_an_upload_is_delivered_in_its_place_and_its_copy_removed(run: Run) -> None:
    copy = run.folder.path / "files" / "file" / "checkpoint-1"
    copy.mkdir(parents=True)
    (copy / "weights").write_text("w", "utf-8")
    run.log(1, a=1)
    run.write("upload", 1, **{"for": "file", "path": "files/file/checkpoint-1", "name": "c-1"})
    run.write("upload", 1, **{"for": "other", "path": "files/other/checkpoint-1", "name": "c-1"})
    run.write("upload", 1, **{"for": "file", "path": "files/file/gone", "name": "c-2"})
    run.log(2, a=1)
    consumer = run.consumer(Keeping)
    consumer.deliver()
    assert names_of_calls(run.out)[2:] == ["log_metrics", "log_files", "log_metrics"]
    [upload] = [call for call in calls(run.out) if call["call"] == "log_files"]
    assert (upload["name"], upload["step"], upload["files"]) == ("c-1", 1, {"weights": "w"})
    assert not copy.exists()
    assert consumer.progress.left_out == {"c-2": "its files are gone"}


def test_points_after_the_end_open_the_run_again_and_rewind_no_second_time(run: Run) -> None:
    run.log(1, a=1)
    first = run.consumer(Rewinding)
    first.deliver()
    first.abandon()
    run.log(2, a=2)
    run.end()
    run.log(2, eval_a=3)
    run.end()
    run.consumer(Rewinding).deliver()
    opened = [call["rewind_to"] for call in calls(run.out) if call["call"] == "open"]
    assert opened == [None, 2, None]
    assert stored(run.out) == [("train/a", 1, 1), ("train/a", 2, 2), ("eval/a", 2, 3)]


def test_two_do_not_deliver_the_same_run_to_the_same_tracker(run: Run) -> None:
    first, second = run.consumer(), run.consumer()
    first.deliver()
    with pytest.raises(BlockingIOError):
        second.deliver()
    first.release()
    second.deliver()


def test_a_training_that_is_resumed_meanwhile_replaces_what_was_read(run: Run) -> None:
    run.log(1, a=1)
    run.write("saved", 1)
    run.log(2, a=2)
    consumer = run.consumer()
    consumer.deliver()
    run.begin(1)
    run.log(2, a=2)
    run.log(3, a=3)
    run.end()
    consumer.deliver()
    assert stored(run.out, tells_duplicates=False) == [("train/a", n, n) for n in (1, 2, 3)]
    assert statuses(run.out) == ["failed", "finished"]


def test_an_abandoned_consumer_calls_its_tracker_no_more(run: Run) -> None:
    run.log(1, a=1)
    consumer = run.consumer()
    consumer.abandon()
    with pytest.raises(Abandoned):
        consumer.deliver()
    assert calls(run.out) == []


def test_a_training_that_did_not_say_how_it_ended_is_closed_as_one_is_told(run: Run) -> None:
    run.log(1, a=1)
    consumer = run.consumer()
    consumer.training_ended("failed")
    consumer.deliver()
    assert consumer.done
    assert statuses(run.out) == ["failed"]


class SameThread(FileTracker):
    """Notes which threads it was called in."""

    threads: set[int]

    def _write(self, call: str, **what: Any) -> None:
        self.threads = {*getattr(self, "threads", set()), get_ident()}
        super()._write(call, **what)


def test_a_thread_delivers_while_nobody_waits_and_all_calls_are_in_it(run: Run) -> None:
    tracker = SameThread(str(run.out), delay=0.02)
    delivery = ThreadDelivery(Consumer(tracker, run.folder, "file"), 60.0)
    delivery.start()
    for step in range(1, 4):
        run.log(step, a=step)
    run.end()
    delivery.finish(math.inf)
    assert (delivery.consumer.done, delivery.finished, delivery.trouble()) == (True, True, None)
    assert [p.step for p in points(run.out)] == [1, 2, 3]
    assert len(tracker.threads) == 1
    assert get_ident() not in tracker.threads


def test_inline_delivers_in_the_thread_of_the_training(run: Run) -> None:
    tracker = SameThread(str(run.out))
    delivery = InlineDelivery(Consumer(tracker, run.folder, "file"), 60.0)
    delivery.start()
    run.log(1, a=1)
    delivery.poke()
    assert [p.step for p in points(run.out)] == [1]
    run.end()
    delivery.finish(math.inf)
    assert tracker.threads == {get_ident()}
    assert delivery.trouble() is None


@pytest.mark.parametrize("method", ["open", "log_metrics", "close"])
def test_a_call_that_never_comes_back_is_waited_for_to_the_limit(run: Run, method: str) -> None:
    run.log(1, a=1)
    run.end()
    delivery = ThreadDelivery(run.consumer(hang=method), 60.0)
    delivery.start()
    assert eventually(lambda: delivery.consumer.doing and delivery.consumer.doing[0] == method)
    delivery.finish(time.monotonic())
    trouble = delivery.trouble()
    assert delivery.given_up
    assert trouble is not None
    assert f"{method} has not come back for" in trouble
    assert "python -m callback_core.tracking.replay" in trouble
    assert ("has not got 1 points" in trouble) == (method != "close")


def test_a_run_that_does_not_open_is_said_once_and_not_waited_for(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run.end()
    delivery = ThreadDelivery(run.consumer(hang="open"), open_limit=0.05)
    delivery.start()
    assert eventually(lambda: delivery.poke() or "has not opened" in caplog.text)  # type: ignore[func-returns-value]
    delivery.poke()
    delivery.finish(math.inf)
    assert caplog.text.count("has not opened its run in 0.05 s") == 1
    assert delivery.given_up


class Failing(FileTracker):
    """Never opens a run, and counts how often it was to."""

    limits = Limits(deliver_every=0.001, retry_after=0.001)
    tries = 0

    def open(self, opening: Any) -> str:
        self.tries += 1
        raise ConnectionError("the service is down")


@pytest.mark.parametrize("kind", [ThreadDelivery, InlineDelivery])
def test_a_tracker_that_always_fails_is_logged_once_with_its_traceback(
    run: Run, caplog: pytest.LogCaptureFixture, kind: Any
) -> None:
    run.log(1, a=1, b=2)
    run.end()
    tracker = Failing(str(run.out))
    delivery = kind(Consumer(tracker, run.folder, "file"), 60.0)
    delivery.start()
    assert eventually(lambda: delivery.poke() or tracker.tries > 2)
    delivery.finish(time.monotonic())
    [warning] = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "file does not take what it is given" in warning.getMessage()
    assert "the service is down" in caplog.text
    assert "Traceback" in caplog.text
    assert delivery.trouble() == (
        "file has not got 2 points (ConnectionError: the service is down): python -m "
        f"callback_core.tracking.replay '{run.folder.output_dir}' delivers what is pending"
    )


def test_a_tracker_that_is_not_configured_is_given_up_after_that_is_said_with_its_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of training, which looks from another thread, may be said right after that."""
    seen: list[tuple[bool, bool]] = []

    class Looking(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            seen.append((delivery.hopeless, delivery._attempts.failure is None))
            return True

    monkeypatch.setattr(
        logging.getLogger("callback_core.tracking.delivery"), "filters", [Looking()]
    )
    delivery = ThreadDelivery(run.consumer(WithoutKey), 60.0)
    delivery.start()
    assert eventually(lambda: delivery.hopeless)
    delivery.finish(math.inf)
    assert seen == [(False, False)]


class Patient(FileTracker):
    """Is tried again after longer than any test takes."""

    limits = Limits(retry_after=1e6)


def test_a_thread_that_is_given_up_ends_though_it_was_to_try_again_much_later(run: Run) -> None:
    run.log(1, a=1)
    run.end()
    delivery = ThreadDelivery(run.consumer(Patient, fail="all"), 60.0, longest_pause=1e6)
    delivery.start()
    assert eventually(lambda: delivery._attempts.failure)
    delivery.finish(time.monotonic() + 0.5)  # in which it tries once more
    assert eventually(lambda: not delivery._thread.is_alive())


def test_a_lock_that_another_holds_is_waited_for_in_silence(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run.log(1, a=1)
    run.end()
    other = run.consumer()
    other._start()
    delivery = ThreadDelivery(run.consumer(), 60.0)
    delivery.start()
    assert eventually(lambda: delivery._attempts.failure)
    other.release()
    delivery.finish(math.inf)
    assert delivery.consumer.done
    assert caplog.records == []


def test_many_that_were_left_out_are_named_in_part(run: Run) -> None:
    run.log(1, **{f"text{n}": "x" for n in range(7)})
    run.end()
    delivery = InlineDelivery(run.consumer(), 60.0)
    delivery.start()
    delivery.finish(math.inf)
    trouble = delivery.trouble()
    assert trouble is not None
    assert trouble.startswith("file did not take all (text0: it is text; ")
    assert trouble.endswith(" and 2 more)")


def test_the_journal_is_not_touched_by_delivering_it(run: Run) -> None:
    run.log(1, a=1)
    run.end()
    before = [record.content for record in read(run.folder.journal)]
    run.consumer().deliver()
    assert [record.content for record in read(run.folder.journal)] == before


def test_what_a_tracker_has_to_write_says_so() -> None:
    bare = Tracker()
    for call in (lambda: bare.open(None), lambda: bare.close(None), lambda: bare.log_metrics([])):  # type: ignore[arg-type]
        with pytest.raises(NotImplementedError):
            call()


def test_where_another_has_delivered_all_meanwhile_it_is_done(run: Run) -> None:
    run.log(1, a=1)
    run.end()
    run.consumer().deliver()
    late = run.consumer()
    late.deliver()
    assert late.done
    assert names_of_calls(run.out).count("open") == 1


def test_what_was_passed_over_and_never_sent_is_sent_when_it_comes_again(run: Run) -> None:
    run.log(1, a=1)
    run.write("saved", 1)
    first = run.consumer()
    first.deliver()
    first.abandon()
    run.log(2, a=2)  # killed before this is delivered
    run.begin(1)
    second = run.consumer()
    second.deliver()
    second.abandon()
    run.log(2, a=2)  # killed again
    run.begin(1)
    run.log(2, a=2)
    run.end()
    run.consumer().deliver()
    assert stored(run.out) == [("train/a", 1, 1), ("train/a", 2, 2)]
