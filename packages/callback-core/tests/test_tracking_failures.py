"""A tracker that fails or rejects: what it costs, what is tried again, and what is said of it."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from run_for_tests import Run, tries
from tracking_for_tests import (
    PATIENCE,
    FileTracker,
    Training,
    calls,
    curve,
    eventually,
    expected,
    names_of_calls,
    points,
    statuses,
    stored,
    tracked,
    warned,
)

from callback_core.tracking.batching import MOST_TRIES
from callback_core.tracking.consumer import Consumer
from callback_core.tracking.delivery.base import LONGEST_PAUSE, Delivery
from callback_core.tracking.delivery.inline import InlineDelivery
from callback_core.tracking.delivery.thread import ThreadDelivery
from callback_core.tracking.tracker_run import TrackerRun

BAD: dict[str, Any] = {"fail": "log_metrics", "point": "train/bad"}
"""What makes a tracker that takes all points but those of one name."""


def names(run: Run) -> list[tuple[str, int]]:
    return [(point.name.removeprefix("train/"), point.step) for point in points(run.out)]


def test_whatever_fails_once_is_tried_again_and_nothing_is_lost_or_sent_twice(run: Run) -> None:
    run.log(1, loss=0.5, note="a", total_flos=2)
    run.save(1, "file")
    run.log(2, loss=0.25)
    run.end()
    consumer = run.consumer(fail="all", times=1, checkpoints=True, limits={"text": True})
    failed = [error.split()[0] for error in tries(consumer)]
    kinds = ["log_metrics", "log_text", "log_summary"]
    assert failed == ["open", "log_parameters", *kinds, "log_files", "close"]
    assert names_of_calls(run.out) == [*failed[:-1], "log_metrics", "close"]
    assert len(points(run.out)) == 4
    assert consumer.run.progress.left_out == {}


def test_a_retry_goes_on_where_it_was(run: Run) -> None:
    for step in range(1, 6):
        run.log(step, a=step, **({"bad": step} if step == 3 else {}), b=step)
    tries(run.consumer(**BAD, error="RuntimeError", times=2, limits={"batch_size": 3}))
    assert names(run) == [
        *(("a", 1), ("b", 1), ("a", 2), ("b", 2)),
        *(("a", 3), ("bad", 3), ("b", 3)),
        *(("a", 4), ("b", 4), ("a", 5), ("b", 5)),
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 1000])
@pytest.mark.parametrize("error", ["Rejected", "RuntimeError"])
def test_a_point_that_is_never_taken_costs_only_itself(
    run: Run, error: str, batch_size: int
) -> None:
    """Who says that it is for ever is not asked again; otherwise others show that it is."""
    for step in (1, 2, 3):
        run.log(step, a=1, bad=2, b=3)
    run.end()
    consumer = run.consumer(**BAD, error=error, limits={"batch_size": batch_size})
    assert len(tries(consumer)) == (0 if error == "Rejected" else MOST_TRIES - 1)
    assert consumer.done
    assert sorted(names(run)) == sorted((name, step) for step in (1, 2, 3) for name in "ab")
    assert list(consumer.run.progress.left_out) == ["train/bad"]
    assert "log_metrics fails" in consumer.run.progress.left_out["train/bad"]


def test_once_it_is_known_which_point_is_rejected_others_come_in_batches_again(run: Run) -> None:
    run.log(1, a=1, bad=2, b=3)
    for step in range(2, 34):
        run.log(step, a=step)
    run.deliver(**BAD, error="Rejected", limits={"batch_size": 8})
    sizes = [len(call["points"]) for call in calls(run.out, "log_metrics")]
    assert sum(sizes) == 34
    assert sizes.count(1) <= 8
    assert len(sizes) <= 8 + 4


def test_a_point_that_always_fails_takes_less_patience_the_second_time(run: Run) -> None:
    consumer = run.consumer(**BAD, error="RuntimeError")
    failed = []
    for step in (1, 2):
        run.log(step, a=1, bad=2, b=3)
        tries(consumer)
        failed.append(len(calls(run.out, "log_metrics", failed=True)))
    assert failed[0] >= MOST_TRIES
    assert 1 <= failed[1] - failed[0] <= 3
    assert [step for _, step in curve(run.out, "train/b")] == [3, 3]


def test_a_point_with_nothing_behind_it_is_not_left_out(run: Run) -> None:
    run.log(1, a=1)
    run.log(2, bad=2)
    run.end()
    consumer = run.consumer(**BAD, error="RuntimeError", limits={"batch_size": 1})
    assert len(tries(consumer)) == 50
    assert consumer.pending() == 1
    assert consumer.run.progress.left_out == {}


@pytest.mark.parametrize("error", ["ConnectionError", "NotConfigured"])
def test_a_service_that_is_down_for_long_loses_nothing(run: Run, error: str) -> None:
    run.log(1, a=1, b=2)
    run.end()
    consumer = run.consumer(fail="log_metrics", error=error)
    assert len(tries(consumer, most=3 * MOST_TRIES)) == 3 * MOST_TRIES
    assert (consumer.pending(), consumer.done) == (2, False)
    run.up.touch()
    consumer.deliver()
    assert consumer.done
    assert stored(run.out, tells_duplicates=False) == [("train/a", 1, 1), ("train/b", 1, 2)]
    assert consumer.run.progress.left_out == {}


@pytest.mark.parametrize(("error", "tried"), [("Rejected", 0), ("RuntimeError", MOST_TRIES - 1)])
def test_parameters_that_are_never_taken_do_not_hold_up_the_points(
    run: Run, error: str, tried: int
) -> None:
    run.log(1, a=1)
    run.end()
    consumer = run.consumer(fail="log_parameters", error=error)
    assert len(tries(consumer)) == tried
    assert consumer.done
    assert names(run) == [("a", 1)]
    assert list(consumer.run.progress.left_out) == ["parameters"]
    assert "log_parameters fails" in consumer.run.progress.left_out["parameters"]


def test_parameters_that_failed_are_tried_again_before_the_run_is_closed(run: Run) -> None:
    run.begin(0, lr=1)
    run.log(1, a=1)
    consumer = run.consumer(fail="log_parameters")
    tries(consumer)
    run.up.touch()
    run.end()
    consumer.deliver()
    assert names_of_calls(run.out)[-2:] == ["log_parameters", "close"]
    assert consumer.run.progress.left_out == {}


def test_a_checkpoint_that_is_rejected_is_named_and_tried_once(run: Run) -> None:
    run.save(1, "file")
    run.log(2, a=1)
    run.end()
    consumer = run.deliver(fail="log_files", error="Rejected", checkpoints=True)
    assert consumer.done
    assert len(calls(run.out, "log_files", failed=True)) == 1
    assert names(run) == [("a", 2)]
    assert list(consumer.run.progress.left_out) == ["checkpoint-1"]


def test_the_pauses_between_two_tries_grow_to_a_limit_and_begin_again_after_a_success(
    run: Run,
) -> None:
    run.log(1, a=1)
    consumer = run.consumer(fail="open", times=8, limits={"retry_after": 1.0})
    attempts = InlineDelivery(consumer, PATIENCE)
    pauses = [attempts.attempt() for _ in range(8)]
    assert pauses == [1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]
    assert attempts.attempt() < 1  # it works, and is delivered to as often as ever
    assert attempts.failure is None
    consumer.tracker.fail = "log_metrics"  # type: ignore[attr-defined]
    run.log(2, a=1)
    assert attempts.attempt() == 1


def test_a_thread_pauses_between_two_tries_also_when_somebody_waits(run: Run) -> None:
    """Then no longer each time: 30 tries with pauses that double would take for ever."""
    run.end()
    pause = 0.02
    consumer = run.consumer(fail="open", times=30, limits={"retry_after": pause})
    delivery = ThreadDelivery(consumer, 60.0, longest_pause=1e6)
    delivery.start()
    delivery.finish(float("inf"))
    assert consumer.done
    tried = [call["at"] for call in calls(run.out, "open", failed=True)]
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert min(pauses[1:]) > 0.9 * pause  # who begins to wait ends one pause


def test_inline_a_log_is_not_kept_by_another_try_before_the_pause_is_over(run: Run) -> None:
    consumer = run.consumer(fail="open", limits={"retry_after": 1e6})
    delivery = InlineDelivery(consumer, 60.0)
    delivery.start()
    for step in range(1, 6):
        run.log(step, a=1)
        delivery.notify()
    assert len(calls(run.out, "open", failed=True)) == 1


def test_inline_all_is_tried_again_once_the_pause_is_over(run: Run) -> None:
    delivery = InlineDelivery(run.consumer(fail="open", times=3), 60.0)
    delivery.start()
    run.log(1, a=1)
    assert eventually(lambda: delivery.notify() or points(run.out))  # type: ignore[func-returns-value]
    assert names(run) == [("a", 1)]
    assert len(calls(run.out, "open", failed=True)) == 3
    run.end()
    delivery.finish(0.0)
    assert delivery.consumer.done


@pytest.mark.parametrize("kind", [ThreadDelivery, InlineDelivery])
def test_a_tracker_that_always_fails_is_logged_once_with_its_traceback_and_once_at_the_end(
    run: Run, caplog: pytest.LogCaptureFixture, kind: type[Delivery]
) -> None:
    run.log(1, a=1, b=2)
    run.end()
    delivery = kind(run.consumer(fail="open"), 60.0)
    delivery.start()
    assert eventually(lambda: delivery.notify() or len(calls(run.out, "open", failed=True)) > 2)
    delivery.finish(0.0)
    [warning] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "file" in warning.getMessage()
    assert "Traceback" in caplog.text
    assert "open fails" in caplog.text
    trouble = delivery.shortfall()
    assert trouble is not None
    for fact in ("file", "2 points", "ConnectionError: open fails", str(run.folder.output_dir)):
        assert fact in trouble


@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
def test_a_training_whose_tracker_leaves_something_out_says_so_once_at_its_end(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, delivery: Any
) -> None:
    tracker = tracked(out, delivery=delivery, **BAD, error="Rejected")
    training = Training(tmp_path, [tracker])
    training.begin()
    training.step(loss=0.5, bad=1)
    training.end()
    assert curve(out) == [(1, 0.5)]
    [line] = warned(caplog)
    assert "train/bad" in line
    assert "log_metrics fails" in line


class Unreadable(dict[str, Any]):
    """Logs that cannot be read."""

    def items(self) -> Any:
        raise RuntimeError("cannot be read")


def test_an_error_in_an_event_is_said_once_and_costs_only_what_was_logged(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracked(out)
    training = Training(tmp_path, [tracker])
    training.begin()
    for _ in range(5):
        tracker.on_log(training.args, training.state, training.control, logs=Unreadable(loss=1))
    training.step()
    training.end()
    assert curve(out) == expected(1)
    [line] = warned(caplog)
    assert "on_log" in line
    assert "cannot be read" in caplog.text


class Configuration:
    """The configuration of a model."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def to_dict(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


ENDLESS: dict[str, Any] = {}
ENDLESS["itself"] = ENDLESS


@pytest.mark.parametrize(
    ("found", "warnings"),
    [(RuntimeError("mute"), 1), (ENDLESS, 1), ({"layers": 2, (1, 2): 3}, 0)],
    ids=["mute", "endless", "numbered"],
)
def test_parameters_that_cannot_be_read_cost_only_themselves(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, found: Any, warnings: int
) -> None:
    class Odd:
        config = Configuration(found)

    training = Training(tmp_path, [tracked(out)])
    training.handler.model = Odd()
    training.train(1)
    assert curve(out) == expected(1)
    [told] = calls(out, "log_parameters")
    assert told["parameters"]["learning_rate"] == 0.1
    assert told["parameters"].get("layers") == (None if warnings else 2)
    assert ["Configuration" in line for line in warned(caplog)] == [True] * warnings


def test_two_do_not_deliver_the_same_run_to_the_same_tracker(run: Run) -> None:
    first, second = run.consumer(), run.consumer()
    first.deliver()
    with pytest.raises(BlockingIOError):
        second.deliver()
    first.release()
    second.deliver()


def test_where_another_has_delivered_all_meanwhile_it_is_done(run: Run) -> None:
    run.log(1, a=1)
    run.end()
    run.deliver()
    late = run.consumer()
    late.deliver()
    assert late.done
    assert names_of_calls(run.out).count("open") == 1


def test_a_training_that_did_not_say_how_it_ended_is_closed_as_one_is_told(run: Run) -> None:
    run.log(1, a=1)
    consumer = Consumer(TrackerRun(FileTracker(str(run.out)), run.folder, "file"))
    consumer.training_ended("failed")
    consumer.deliver()
    assert consumer.done
    assert statuses(run.out) == ["failed"]


def test_an_attempt_that_is_under_way_is_not_hopeless(run: Run) -> None:
    """What was missing at the one before may be there by now."""
    seen: list[bool] = []

    def deliver(*, only_logs: bool) -> None:
        seen.append(attempts.hopeless)
        if len(seen) == 1:
            raise ModuleNotFoundError("lines_sdk")

    consumer = run.consumer()
    consumer.deliver = deliver  # type: ignore[method-assign]
    attempts = InlineDelivery(consumer, PATIENCE)
    attempts.attempt()
    assert attempts.hopeless
    attempts.attempt()
    assert seen == [False, False]
