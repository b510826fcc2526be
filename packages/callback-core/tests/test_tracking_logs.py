"""What a log may hold besides numbers and text: dicts, and values of an SDK's own types."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tracking_for_tests import (
    FileTracker,
    Training,
    calls,
    curve,
    points,
    replay,
    tracked,
    warned,
)

from callback_core.tracking import Point


class Picture:
    """A type of a tracker's SDK, which JSON cannot hold."""


class TakingTracker(FileTracker):
    """Takes pictures, and writes where it got them."""

    shown: list[Any] = []  # noqa: RUF012

    def takes(self, value: Any) -> bool:
        return isinstance(value, Picture)

    def log_objects(self, points: Sequence[Point]) -> None:
        self.shown += [(point.name, point.value, point.step) for point in points]


class OrderedTracker(FileTracker):
    """Has each log before the program continues."""

    sdk = "lines_sdk"

    @property
    def in_order(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def empty() -> None:
    TakingTracker.shown = []


def test_an_entry_of_a_dict_has_the_names_of_both(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [tracked(out)])
    training.begin()
    training.step(per_class={"a": 0.5, "b": {"c": 2, "bad": math.inf}}, eval_f1={"cat": 1.0})
    training.end()
    assert {point.name: point.value for point in points(out)} == {
        "train/per_class/a": 0.5,
        "train/per_class/b/c": 2,
        "train/per_class/b/bad": math.inf,
        "eval/f1/cat": 1.0,
    }


def test_an_empty_dict_and_an_entry_that_is_no_number_are_named(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [tracked(out)])
    training.begin()
    training.step(nothing={}, some={"date": object(), "x": 1.0})
    training.end()
    assert curve(out, "train/some/x") == [(1, 1.0)]
    [line] = warned(caplog)
    assert "nothing" in line
    assert "some/date" in line


def test_a_dict_does_not_replace_what_has_the_name_of_an_entry(
    tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    training = Training(tmp_path, [tracked(out)])
    training.begin()
    training.step(**{"a/b": 1.0, "a": {"b": 2.0}})
    training.end()
    assert curve(out, "train/a/b") == [(1, 1.0)]
    assert "a/b" in caplog.text


def test_secrets_in_a_dict_are_hidden(tmp_path: Path, out: Path) -> None:
    training = Training(tmp_path, [tracked(out, redact=["patient"], limits={"text": True})])
    training.begin()
    training.step(who={"patient": 3.0, "api_key": "abc"}, patient={"age": 4.0}, x={"age": 5.0})
    training.end()
    numbers = {p.name: p.value for p in points(out) if not isinstance(p.value, str)}
    assert numbers == {"train/x/age": 5.0}
    assert "abc" not in out.read_text()


def test_a_value_of_an_sdks_type_reaches_that_sdk_and_is_named_for_others(
    tmp_path: Path, out: Path, other: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = Picture()
    training = Training(tmp_path, [tracked(out, TakingTracker), tracked(other)])
    training.begin()
    training.step(picture=picture, loss=0.5)
    training.step(sides={"left": picture})
    training.end()
    assert TakingTracker.shown == [
        ("train/picture", picture, 1),
        ("train/sides/left", picture, 2),
    ]
    assert curve(out) == curve(other) == [(1, 0.5)]
    [line] = warned(caplog)
    assert "picture" in line


def test_a_replay_names_the_values_that_it_does_not_have(tmp_path: Path, out: Path) -> None:
    until = tmp_path / "open"
    options: dict[str, Any] = {"fail": "open", "until": str(until)}
    training = Training(tmp_path, [tracked(out, TakingTracker, flush_limit=0, **options)])
    training.begin()
    training.step(picture=Picture(), loss=0.5)
    training.end()
    until.touch()
    done = replay(tmp_path)
    assert "picture" in done.stdout + done.stderr
    assert curve(out) == [(1, 0.5)]


def test_a_log_in_the_order_of_the_program_is_delivered_before_the_program_continues(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lines_sdk", ModuleType("lines_sdk"))
    training = Training(tmp_path, [tracked(out, OrderedTracker)])
    training.begin()
    for step in range(1, 4):
        training.step()
        assert [point.step for point in points(out)] == list(range(1, step + 1))
    training.end()


def test_the_first_step_waits_for_a_run_to_which_the_program_may_add(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lines_sdk", ModuleType("lines_sdk"))
    training = Training(tmp_path, [tracked(out, OrderedTracker, delay=0.2)])
    training.begin()
    assert calls(out, "open")
    training.end()
