"""Names: two that a tracker would take for one are kept apart, and the change is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_for_tests import Run
from tracking_for_tests import Training, calls, curve, points, tracked, warned

from callback_core.tracking import TrainingNumbers, flattened, summary_name, tracked_name

LIMITED = {"key_characters": r"\w/", "key_length": 12}


def sent(run: Run) -> dict[str, list[Any]]:
    """Return the values that the tracker got, by their names there."""
    found: dict[str, list[Any]] = {}
    for point in points(run.out):
        found.setdefault(point.name, []).append(point.value)
    return found


def test_names_that_become_the_same_stay_apart_and_the_second_is_told(run: Run) -> None:
    run.log(1, **{"a b": 1, "a_b": 2, "a-b": 3})
    run.log(2, **{"a-b": 30, "a_b": 20, "a b": 10})
    run.end()
    consumer = run.deliver(limits=LIMITED)
    assert sent(run) == {"train/a_b": [1, 10], "train/a_b_2": [2, 20], "train/a_b_3": [3, 30]}
    assert set(consumer.run.progress.left_out) == {"a_b", "a-b"}
    assert "train/a_b_2" in consumer.run.progress.left_out["a_b"]


def test_a_number_never_makes_a_name_longer_than_the_tracker_takes(run: Run) -> None:
    run.log(1, **{f"long_name_{number}": number for number in range(12)})
    run.end()
    run.deliver(limits=LIMITED)
    found = sent(run)
    assert sorted(value for [value] in found.values()) == list(range(12))
    assert max(map(len, found)) == 12


def test_a_name_that_looks_like_a_numbered_one_stays_apart_too(run: Run) -> None:
    run.log(1, **{"a b": 1, "a_b": 2, "a_b_2": 3, "a-b": 4})
    run.end()
    run.deliver(limits=LIMITED)
    assert sorted(value for [value] in sent(run).values()) == [1, 2, 3, 4]


def test_a_delivery_that_continues_gives_each_name_the_one_it_had(run: Run) -> None:
    run.log(1, **{"a b": 1})
    run.log(2, **{"a_b": 2})
    run.deliver(limits=LIMITED)
    run.log(3, **{"a_b": 3})
    run.log(4, **{"a b": 4})
    run.end()
    run.deliver(limits=LIMITED)
    assert sent(run) == {"train/a_b": [1, 4], "train/a_b_2": [2, 3]}


def test_a_replaced_stretch_keeps_its_names(run: Run) -> None:
    run.save(1)
    run.log(2, **{"a b": 1})
    run.deliver(limits=LIMITED)
    run.begin(1)
    run.log(2, **{"a_b": 2})
    run.log(3, **{"a b": 3})
    run.end()
    run.deliver(limits=LIMITED)
    assert sent(run) == {"train/a_b": [1, 3], "train/a_b_2": [2]}


def test_a_name_that_the_tracker_uses_itself_gets_a_number(run: Run) -> None:
    run.log(1, global_step=7, loss=0.5)
    run.end()
    consumer = run.deliver(limits={"reserved": ["train/global_step"]})
    assert sent(run) == {"train/global_step_2": [7], "train/loss": [0.5]}
    assert set(consumer.run.progress.left_out) == {"global_step"}


def test_a_prefix_and_a_group_of_the_same_letters_stay_apart(run: Run) -> None:
    names = ["eval_loss", "eval/loss", "train/loss", "loss", "train_loss", "test_x", "test/x"]
    run.log(1, **{name: number for number, name in enumerate(names)})
    run.end()
    consumer = run.deliver()
    assert len(sent(run)) == len(names)
    assert consumer.run.progress.left_out == {}


@pytest.mark.parametrize(
    ("name", "sent_as"),
    [
        ("a//b", "train/a/_/b"),
        ("../up", "train/__/up"),
        ("./x", "train/_/x"),
        ("a/", "train/a/_"),
        ("", "train/_"),
        ("eval_", "eval/_"),
        ("a..b/c.", "train/a..b/c."),
        ("abcdef/gh", "train/abcdef"),
    ],
)
def test_a_name_that_is_a_path_has_only_real_parts(run: Run, name: str, sent_as: str) -> None:
    run.log(1, **{name: 1})
    run.end()
    run.deliver(limits={"key_is_path": True, "key_length": 13})
    assert list(sent(run)) == [sent_as]


def test_parameters_that_become_the_same_stay_apart_and_the_second_is_told(run: Run) -> None:
    run.begin(0, **{"a b": 1, "a_b": 2, "long_name_for_1": 3, "long_name_for_2": 4})
    consumer = run.deliver(limits=LIMITED)
    told = calls(run.out, "log_parameters")[-1]["parameters"]
    assert told == {"a_b_2": 1, "a_b": 2, "long_name_fo": 3, "long_name__2": 4}
    assert {"a b", "long_name_for_1", "long_name_for_2"} <= set(consumer.run.progress.left_out)


def test_a_long_text_is_cut_and_told(run: Run) -> None:
    run.log(1, note="123456789", short="12345678")
    run.end()
    consumer = run.deliver(limits={"text": True, "text_length": 8})
    assert sent(run) == {"train/note": ["1234567…"], "train/short": ["12345678"]}
    assert set(consumer.run.progress.left_out) == {"note"}


@pytest.mark.parametrize(
    "names",
    [(1, "1"), ((1, 2), "(1, 2)"), ("url https://a:b@c", "url https://d:e@c")],
)
def test_names_that_are_the_same_as_text_stay_apart(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture, names: tuple[Any, Any]
) -> None:
    training = Training(tmp_path, [tracked(out)])
    training.begin()
    for step in (1, 2):
        training.state.global_step = step
        training.fire("on_log", logs={names[0]: 10 * step, names[1]: 10 * step + 1})
    training.end()
    curves = {point.name: curve(out, point.name) for point in points(out)}
    assert sorted(curves.values()) == [[(1, 10), (2, 20)], [(1, 11), (2, 21)]]
    assert len(warned(caplog)) == 1


def test_values_of_a_summary_have_names_of_their_own() -> None:
    names = ["train_loss", "eval_x", "eval/x", "train/x", "x", "test_x"]
    assert summary_name(tracked_name("train_loss")) == "train_loss"
    assert len({summary_name(tracked_name(name)) for name in names}) == len(names)


def test_nested_values_never_take_the_place_of_others() -> None:
    assert flattened({"a": {"b": 1}, "a.b": 2, 1: 3, "1": 4}) == {
        "a.b": 1,
        "a.b_2": 2,
        "1": 3,
        "1_2": 4,
    }


def test_trainings_that_share_a_run_are_numbered_from_the_second_on_each_time_alike() -> None:
    numbers = TrainingNumbers()
    for _ in range(2):
        found = [numbers.suffix("run", training) for training in ("a", "b", "c", "d")]
        assert found == ["", "_2", "_3", "_4"]
    assert numbers.suffix("another run", "b") == ""
