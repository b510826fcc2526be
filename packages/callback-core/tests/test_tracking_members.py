"""Several trackers of one training: each gets all of it, whenever it comes and whoever leaves."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from tracking_for_tests import (
    FileTracker,
    Training,
    calls,
    curve,
    eventually,
    expected,
    hangs,
    points,
    statuses,
    tracked,
    warned,
)

from callback_core import TrainerCallback, TrainerState
from callback_core.tracking.delivery.base import LONGEST_PAUSE
from callback_core.tracking.journal import read
from callback_core.tracking.run_folder import RunFolder


def kinds(folder: RunFolder) -> list[str]:
    return [record.kind for record in read(folder.journal)]


def test_two_trackers_share_a_journal_in_which_each_event_stands_once(
    tmp_path: Path, out: Path, other: Path
) -> None:
    training = Training(tmp_path, [tracked(out), tracked(other)])
    training.begin()
    training.step()
    training.log(eval_loss=1.0)
    training.log(eval_loss=1.0)  # the same again is another event
    training.save()
    training.step()
    training.end()
    [run] = RunFolder.all(tmp_path)
    assert kinds(run) == ["begin", "logs", "logs", "logs", "saved", "logs", "end"]
    assert points(out) == points(other)
    assert statuses(out) == statuses(other) == ["finished"]
    assert len(run.trackers()) == 2  # of one name


def test_another_callback_that_changes_its_logs_changes_nothing(
    tmp_path: Path, out: Path, other: Path
) -> None:
    class Meddling(TrainerCallback):
        def on_log(self, *args: Any, logs: Any = None, **kwargs: Any) -> None:
            logs.clear()

    Training(tmp_path, [Meddling(), tracked(out), Meddling(), tracked(other)]).train(2)
    assert curve(out) == curve(other) == expected(1, 2)


@pytest.mark.parametrize("first", [True, False])
def test_a_tracker_that_is_removed_in_the_middle_does_not_matter_to_the_other(
    tmp_path: Path, out: Path, other: Path, first: bool
) -> None:
    leaves, stays = tracked(other), tracked(out)
    training = Training(tmp_path, [leaves, stays] if first else [stays, leaves])
    training.begin()
    training.step()
    training.handler.pop_callback(leaves)
    training.step()
    training.step()
    training.handler.callbacks.insert(0, leaves)
    training.step()
    training.end()
    assert curve(out) == expected(1, 2, 3, 4)
    [run] = RunFolder.all(tmp_path)
    assert kinds(run).count("logs") == 4


def test_a_tracker_that_is_added_late_gets_what_was_before(
    tmp_path: Path, out: Path, other: Path
) -> None:
    training = Training(tmp_path, [tracked(out)])
    training.begin()
    training.step()
    training.handler.add_callback(tracked(other))
    training.step()
    training.end()
    assert curve(out) == curve(other) == expected(1, 2)
    assert statuses(other) == ["finished"]


def test_a_tracker_that_is_added_after_the_end_gets_the_whole_run(
    tmp_path: Path, out: Path, other: Path
) -> None:
    training = Training(tmp_path, [tracked(out)]).train(1)
    training.handler.add_callback(tracked(other))
    training.log(eval_loss=0.25)
    assert eventually(lambda: curve(other, "eval/loss") == [(1, 0.25)] and statuses(other))
    assert curve(other) == expected(1)


def test_a_tracker_that_is_added_when_training_is_resumed_gets_the_whole_run(
    tmp_path: Path, out: Path, other: Path
) -> None:
    first, second = tracked(out), tracked(other, name="other")
    Training(tmp_path, [first]).train(1)
    second.load_state_dict({**first.state_dict(), "run_id": None})
    Training(tmp_path, [second], TrainerState(max_steps=9, global_step=1)).train(1)
    assert curve(other) == expected(1, 2)
    assert calls(other, "open")[0]["step"] == 0
    assert len(RunFolder.all(tmp_path)) == 1


def test_one_that_replaces_another_misses_no_log(tmp_path: Path, out: Path, other: Path) -> None:
    first, second = tracked(other), tracked(out)
    training = Training(tmp_path, [first])
    training.begin()
    training.step()
    training.handler.pop_callback(first)
    training.handler.add_callback(second)
    training.step()
    training.end()
    assert curve(out) == expected(1, 2)


def test_the_first_tracker_may_come_in_the_middle(
    tmp_path: Path, out: Path, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Training(tmp_path, [tracked(other)]).train(1)
    training = Training(tmp_path, [])
    training.begin()
    training.step()
    training.handler.add_callback(tracked(out))
    training.step()
    training.step()
    assert kinds(RunFolder.all(tmp_path)[-1]) == ["begin", "logs", "logs"]
    training.end()
    assert curve(out) == expected(2, 3)
    assert statuses(out) == ["finished"]
    assert len(RunFolder.all(tmp_path)) == 2
    assert warned(caplog) == []


def test_trackers_that_hang_are_waited_for_at_the_same_time(tmp_path: Path, out: Path) -> None:
    limit, many = 1.0, 40
    files = [tmp_path / str(number) for number in range(many)]
    trackers = [tracked(file, hang="open", flush_limit=limit) for file in files]
    training = Training(tmp_path, [*trackers, tracked(out)])
    training.begin()
    training.step()
    assert eventually(lambda: all(hangs(file).exists() for file in files))
    training.step()
    begun = monotonic()
    training.end()
    assert monotonic() - begun < limit * many / 2  # one after the other would take it all
    assert curve(out) == expected(1, 2)
    assert statuses(out) == ["finished"]


class Freeing(FileTracker):
    """Makes a file once it has got points."""

    def log_metrics(self, points: Any) -> None:
        super().log_metrics(points)
        Path(self.path).with_name("freed").touch()


def test_while_the_end_waits_for_one_tracker_the_others_deliver(
    tmp_path: Path, out: Path, other: Path
) -> None:
    """The first comes back when the second has got its points, which is in a pause until then."""
    up, freed = tmp_path / "up", tmp_path / "freed"
    first = tracked(out, hang="log_metrics", until=str(freed), flush_limit=LONGEST_PAUSE - 5)
    second = tracked(
        other, Freeing, fail="open", until=str(up), limits={"retry_after": 1e6}, flush_limit=0
    )
    training = Training(tmp_path, [first, second])
    training.begin()
    training.step()
    assert eventually(lambda: calls(other, "open", failed=True) and hangs(out).exists())
    up.touch()
    training.end()
    assert curve(out) == curve(other) == expected(1)
