"""What a tracker can take: points come in batches that fit, and what does not fit is named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from run_for_tests import Run
from tracking_for_tests import Training, calls, curve, points, tracked, warned

from callback_core.tracking import Point

NAN = {"__float__": "NaN"}


def batches(run: Run, method: str = "log_metrics") -> list[int]:
    """Return how many points each call has brought."""
    return [len(call["points"]) for call in calls(run.out, method)]


def test_a_point_is_what_was_logged(run: Run) -> None:
    run.log(1, loss=0.5, eval_loss=1, train_loss=3.0)
    run.end()
    run.deliver()
    assert points(run.out) == [
        Point("train/loss", 0.5, 1, 1.0, 0.5),
        Point("eval/loss", 1, 1, 1.0, 0.5),
        Point("train/train_loss", 3.0, 1, 1.0, 0.5),
    ]


@pytest.mark.parametrize(
    ("logs", "method"),
    [
        ({"train_loss": 3.0}, "log_metrics"),
        ({"train_loss": 3.0, "train_runtime": 9.0}, "log_summary"),
    ],
)
def test_the_mean_loss_is_a_summary_only_in_the_log_that_ends_a_training(
    run: Run, logs: dict[str, float], method: str
) -> None:
    run.log(1, **logs)
    run.deliver()
    assert batches(run, method) == [len(logs)]


def test_points_of_several_logs_come_in_calls_as_large_as_a_tracker_takes_them(run: Run) -> None:
    for step in range(1, 11):
        run.log(step, a=step)
    run.deliver(limits={"batch_size": 4})
    assert batches(run) == [4, 4, 2]
    assert curve(run.out, "train/a") == [(step, step) for step in range(1, 11)]


def test_a_log_that_is_larger_than_a_call_is_split(run: Run) -> None:
    run.log(1, **{f"value{number}": number for number in range(11)})
    run.deliver(limits={"batch_size": 4})
    assert batches(run) == [4, 4, 3]
    assert [point.value for point in points(run.out)] == list(range(11))


def test_names_are_made_to_fit_and_those_that_are_cut_or_lost_are_named(run: Run) -> None:
    logs = {"a(b)": 1, "eleven_chars": 2, "eleven_other": 3, "six_ch": 4, "eval_x y": 5}
    run.log(1, **logs)
    run.log(2, **logs)
    run.end()
    consumer = run.deliver(limits={"key_characters": r"\w/", "key_length": 12})
    found = {point.name for point in points(run.out)}
    assert found == {"train/a_b_", "train/eleven", "train/elev_2", "train/six_ch", "eval/x_y"}
    left_out = consumer.run.progress.left_out
    assert set(left_out) == {"eleven_chars", "eleven_other"}
    assert "train/eleven" in left_out["eleven_chars"]
    assert "train/elev_2" in left_out["eleven_other"]


def test_what_a_tracker_does_not_take_is_left_out_and_named(run: Run) -> None:
    run.log(1, loss=0.5, nan=NAN, text="x", infinite={"__float__": "-Infinity"})
    run.write("logs", 2, logs={"a": 1}, left_out={"list": "a list, not a number"})
    run.end()
    consumer = run.deliver(limits={"non_finite": False, "text": False})
    assert [point.name for point in points(run.out)] == ["train/loss", "train/a"]
    assert set(consumer.run.progress.left_out) == {"nan", "text", "infinite", "list"}
    assert "step 1" in consumer.run.progress.left_out["nan"]
    assert "a list" in consumer.run.progress.left_out["list"]


def test_a_tracker_that_can_gets_text_and_what_is_not_finite(run: Run) -> None:
    run.log(1, text="ü", low={"__float__": "-Infinity"}, nan=NAN)
    run.end()
    consumer = run.deliver(limits={"text": True})
    assert [(call["call"], call["points"][0][1]) for call in calls(run.out) if call["points"]] == [
        ("log_metrics", -math.inf),
        ("log_text", "ü"),
    ]
    assert math.isnan(curve(run.out, "train/nan")[0][1])
    assert consumer.run.progress.left_out == {}


def test_parameters_are_made_to_fit_and_those_that_are_cut_or_lost_are_named(run: Run) -> None:
    run.begin(0, long="123456789", a=1, b=2, c=3)
    consumer = run.deliver(limits={"parameter_length": 8, "parameter_count": 3})
    told = calls(run.out, "log_parameters")[-1]["parameters"]
    assert told == {"long": "1234567…", "a": 1, "b": 2}
    assert set(consumer.run.progress.left_out) == {"long", "c"}


def test_parameters_are_told_again_only_where_a_resumed_training_has_others(run: Run) -> None:
    run.begin(1, lr=1)
    run.begin(1, lr=1)
    run.deliver()
    run.begin(1, lr=2)
    run.deliver()
    told = [call["parameters"] for call in calls(run.out, "log_parameters")]
    assert told == [{}, {"lr": 1}, {"lr": 2}]


@pytest.mark.parametrize(("many", "named"), [(5, 5), (7, 5)])
def test_of_many_that_were_left_out_five_are_named_in_a_line_and_the_others_counted(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, many: int, named: int
) -> None:
    texts: dict[str, Any] = {f"note{number}": "a" for number in range(many)}
    training = Training(tmp_path, [tracked(out)])
    training.begin()
    training.log(**texts)
    training.end()
    [line] = warned(caplog)
    assert sum(name in line for name in texts) == named
    assert (f"{many - named} more" in line) == (many > named)
