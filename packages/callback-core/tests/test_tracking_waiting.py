"""What the end of training waits for, how long, and what becomes of what it does not wait for."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from run_for_tests import Run
from tracking_for_tests import (
    PATIENCE,
    Training,
    calls,
    curve,
    environment,
    eventually,
    expected,
    hangs,
    names_of_calls,
    points,
    replay,
    script,
    statuses,
    tracked,
    warned,
)

from callback_core.tracking.calls import Abandoned
from callback_core.tracking.delivery.base import DeliveryState
from callback_core.tracking.delivery.thread import ThreadDelivery
from callback_core.tracking.lock import FileLock, Held
from callback_core.tracking.retry import backoff
from callback_core.tracking.run_folder import RunFolder


def delivers(delivery: ThreadDelivery) -> bool:
    """Return whether a thread of this delivery runs."""
    name = f"deliver to {delivery.consumer.name}"
    return any(thread.name == name for thread in threading.enumerate())


@pytest.mark.parametrize("delivery", ["thread", "inline"])
def test_the_end_waits_until_a_slow_tracker_has_all(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, delivery: Any
) -> None:
    Training(tmp_path, [tracked(out, delivery=delivery, delay=0.05)]).train(2)
    assert curve(out) == expected(1, 2)
    assert statuses(out) == ["finished"]
    assert warned(caplog) == []


@pytest.mark.parametrize("method", ["open", "log_metrics", "close"])
def test_a_call_that_never_comes_back_is_waited_for_to_the_limit_and_named(
    run: Run, method: str
) -> None:
    run.log(1, a=1)
    run.end()
    delivery = ThreadDelivery(run.consumer(hang=method), PATIENCE)
    delivery.start()
    assert eventually(hangs(run.out).exists)
    limit = 0.2
    begun = time.monotonic()
    delivery.finish(begun + limit)
    assert time.monotonic() - begun >= limit
    trouble = delivery.shortfall()
    assert delivery.state is DeliveryState.GIVEN_UP
    assert trouble is not None
    assert method in trouble
    assert str(run.folder.output_dir) in trouble
    assert ("1 points" in trouble) == (method != "close")


def test_a_call_that_comes_back_after_it_was_given_up_is_the_last(run: Run) -> None:
    """Only then can another deliver the rest."""
    run.log(1, a=1)
    run.log(2, a=2)
    run.end()
    delivery = ThreadDelivery(run.consumer(hang="log_metrics", limits={"batch_size": 1}), PATIENCE)
    delivery.start()
    assert eventually(hangs(run.out).exists)
    delivery.finish(0.0)
    with pytest.raises(Held):
        FileLock(run.folder.lock_of("file"))
    run.up.touch()
    assert eventually(lambda: not delivers(delivery))
    assert names_of_calls(run.out) == ["open", "log_parameters", "log_metrics"]
    run.deliver()
    assert {(point.step, point.value) for point in points(run.out)} == {(1, 1), (2, 2)}


def test_a_training_after_one_that_was_given_up_is_sent_by_another_tracker(
    tmp_path: Path, out: Path
) -> None:
    """Two threads would call the first, which is in a call still."""
    callback = tracked(out, hang="log_metrics", point="train/stuck", flush_limit=0)
    stuck = callback.tracker
    training = Training(tmp_path, [callback])
    training.begin()
    training.step(stuck=1.0)
    assert eventually(hangs(out).exists)
    training.end()
    callback.options.flush_limit = PATIENCE
    Training(tmp_path, [callback]).train(1)
    assert callback.tracker is not stuck
    assert curve(out) == expected(1)
    assert statuses(out) == ["finished"]


def test_a_replay_waits_for_a_given_up_call_that_may_still_open_a_run(run: Run) -> None:
    run.log(1, a=1)
    run.end()
    late = ThreadDelivery(run.consumer(hang="open"), PATIENCE)
    late.start()
    assert eventually(hangs(run.out).exists)
    late.finish(0.0)
    meanwhile = ThreadDelivery(run.consumer(), PATIENCE)
    meanwhile.start()
    assert eventually(lambda: meanwhile.failure)
    assert names_of_calls(run.out) == []
    run.up.touch()
    meanwhile.finish(math.inf)
    assert meanwhile.consumer.done
    assert names_of_calls(run.out) == ["open", "open", "log_parameters", "log_metrics", "close"]


def test_an_abandoned_consumer_calls_its_tracker_no_more(run: Run) -> None:
    run.log(1, a=1)
    consumer = run.consumer()
    consumer.abandon()
    with pytest.raises(Abandoned):
        consumer.deliver()
    assert calls(run.out) == []


@pytest.mark.parametrize("method", ["open", "log_metrics", "close"])
@pytest.mark.parametrize("delivery", ["thread", "process"])
def test_a_tracker_that_hangs_keeps_neither_the_training_nor_the_interpreter(
    tmp_path: Path, out: Path, method: str, delivery: str
) -> None:
    done = script(
        "out, method = Path(sys.argv[2]), sys.argv[3]\n"
        "tracker = tracked(out, hang=method, delivery=sys.argv[4], flush_limit=0.5)\n"
        "training = Training(Path(sys.argv[1]), [tracker])\n"
        "training.begin()\n"
        "training.step()\n"
        "assert method == 'close' or eventually(lambda: hangs(out).exists())\n"
        "training.step()\n"
        "training.save()\n"
        "print('trained')\n"
        "training.end()\n",
        tmp_path,
        out,
        method,
        delivery,
    )
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert done.stderr.count("WARNING:callback_core.tracking") == 1
    assert "Traceback" not in done.stderr
    assert "close" not in names_of_calls(out)


def test_a_run_that_does_not_open_is_said_once_and_not_waited_for(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run.end()
    delivery = ThreadDelivery(run.consumer(hang="open"), open_limit=0.05)
    delivery.start()
    assert eventually(lambda: delivery.notify() or warned(caplog))  # type: ignore[func-returns-value]
    delivery.notify()
    delivery.finish(math.inf)  # which would hang
    [line] = warned(caplog)
    assert "0.05 s" in line
    assert delivery.state is DeliveryState.GIVEN_UP


@pytest.mark.parametrize("error", ["ImportError", "NotConfigured"])
@pytest.mark.parametrize("delivery", ["thread", "inline", "process"])
def test_the_end_does_not_wait_for_what_is_not_installed_or_not_configured(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, delivery: Any, error: str
) -> None:
    up = tmp_path / "up"
    training = Training(
        tmp_path,
        [tracked(out, delivery=delivery, fail="open", error=error, until=str(up), flush_limit=1e6)],
    )
    training.train(3)  # which would hang
    training.fire("on_train_end")  # once more than needed
    assert len(warned(caplog)) == (1 if delivery == "process" else 2)
    assert "3 points" in warned(caplog)[-1]
    logs = "".join(log.read_text() for log in tmp_path.glob("tracking/*/*.log"))
    assert f"{error}: open fails" in (logs if delivery == "process" else warned(caplog)[-1])
    up.touch()
    assert replay(tmp_path).returncode == 0
    assert curve(out) == expected(1, 2, 3)


@pytest.mark.parametrize("delivery", ["thread", "process"])
def test_while_training_goes_on_one_that_is_not_configured_is_asked_again(
    tmp_path: Path, out: Path, delivery: Any
) -> None:
    up = tmp_path / "up"
    options: dict[str, Any] = {"fail": "open", "error": "NotConfigured", "until": str(up)}
    training = Training(tmp_path, [tracked(out, delivery=delivery, **options)])
    training.begin()
    training.step()
    assert eventually(lambda: len(calls(out, "open", failed=True)) > 2)
    up.touch()
    assert eventually(lambda: curve(out) == expected(1))
    training.step()  # which is not taken before the first attempt that works is over
    assert eventually(lambda: curve(out) == expected(1, 2))
    training.end()
    assert statuses(out) == ["finished"]


def test_a_tracker_that_is_not_configured_is_given_up_after_that_is_said_with_its_reason(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of training, which looks from another thread, may be said right after that."""
    seen: list[tuple[bool, bool]] = []

    class Looking(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            seen.append((delivery.hopeless, delivery.failure is None))
            return True

    monkeypatch.setattr(
        logging.getLogger("callback_core.tracking.delivery.base"), "filters", [Looking()]
    )
    delivery = ThreadDelivery(run.consumer(fail="open", error="NotConfigured"), PATIENCE)
    delivery.start()
    assert eventually(lambda: delivery.hopeless)
    delivery.finish(math.inf)
    assert seen == [(False, False)]


def test_the_end_does_not_wait_for_a_pause_of_a_service_that_is_back(run: Run) -> None:
    run.log(1, a=1)
    run.end()
    consumer = run.consumer(fail="open", limits={"retry_after": 1e6})
    delivery = ThreadDelivery(consumer, PATIENCE, longest_pause=1e6)
    delivery.start()
    assert eventually(lambda: delivery.failure)
    run.up.touch()
    delivery.finish(time.monotonic() + PATIENCE)
    assert consumer.done
    assert len(points(run.out)) == 1


def test_a_thread_that_is_given_up_ends_though_it_was_to_try_again_much_later(run: Run) -> None:
    run.log(1, a=1)
    run.end()
    consumer = run.consumer(fail="all", limits={"retry_after": 1e6})
    delivery = ThreadDelivery(consumer, PATIENCE, longest_pause=1e6)
    delivery.start()
    assert eventually(lambda: delivery.failure)
    delivery.finish(time.monotonic() + 0.5)  # in which it tries once more
    assert eventually(lambda: not delivers(delivery))


@contextmanager
def held_elsewhere(path: Path) -> Iterator[None]:
    """Have another process hold a lock."""
    holds = (
        "import sys; from pathlib import Path; from callback_core.tracking.lock import FileLock;"
        "lock = FileLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", holds, str(path)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        yield
    finally:
        other.communicate(timeout=PATIENCE)


def test_while_another_process_delivers_it_is_waited_for_in_silence_and_said_at_the_end(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run.log(1, a=1)
    run.end()
    lock = run.folder.lock_of("file")
    waiting = ThreadDelivery(run.consumer(), PATIENCE)
    with held_elsewhere(lock):
        for delivery in (ThreadDelivery(run.consumer(), PATIENCE), waiting):
            delivery.start()
            assert eventually(lambda: delivery.failure)  # noqa: B023
            if delivery is not waiting:
                delivery.finish(0.0)
                assert str(lock) in str(delivery.shortfall())
        assert calls(run.out) == []
    waiting.finish(math.inf)
    assert waiting.consumer.done
    assert caplog.records == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_waiting_for_a_lock_of_another_process_opens_no_more_and_more_files(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path / "lock"):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with pytest.raises(Held):
                FileLock(tmp_path / "lock")
        assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_pending_is_known_until_it_is_delivered(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    up = tmp_path / "up"
    tracker = tracked(out, fail="open", until=str(up), delivery="inline", flush_limit=0)
    Training(tmp_path, [tracker]).train(2)
    [run] = RunFolder.all(tmp_path)
    assert run.is_pending()
    assert "2 points" in warned(caplog)[-1]
    up.touch()
    assert replay(tmp_path).returncode == 0
    assert not run.is_pending()


def test_the_pause_before_another_attempt_doubles_up_to_the_longest() -> None:
    pauses = [backoff(failures, 0.5, 10.0) for failures in (1, 2, 3, 4, 5, 6, 100_000)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
