"""What trackers are sent: plain values, their names, and what fits."""

from __future__ import annotations

import enum
import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from callback_core.tracking import Limits, flattened, tracked_name
from callback_core.tracking.limits import fitting_name, fitting_parameters
from callback_core.tracking.naming import is_measured
from callback_core.tracking.values import plain, restored


class Scalar:
    """What numpy and torch have: no dimensions, and a float in it or not."""

    shape = ()

    def __init__(self, value: Any) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)


class Array(Scalar):
    shape = (3,)  # type: ignore[assignment]


class Name(str, enum.Enum):  # noqa: UP042  (whose str() is not its value)
    ONE = "one"


class Half(float):
    """As numpy.float64 is one."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (0.5, 0.5),
        (True, 1),
        (False, 0),
        ("text ü", "text ü"),
        (Name.ONE, "one"),
        (Half(0.5), 0.5),
        (Scalar(3), 3.0),
        (10**30, 10**30),
    ],
)
def test_numbers_and_strings_become_plain(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert type(plain(value)) is type(expected) or isinstance(value, str)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_does_not_know_comes_back_as_it_was(value: float) -> None:
    for given in (value, Half(value), Scalar(value)):
        kept = plain(given)
        assert set(kept) == {"__float__"}
        back = restored(kept)
        assert back == value or (math.isnan(back) and math.isnan(value))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [1],
        {"a": 1},
        (),
        Array(1),
        Scalar("no"),
        Scalar(1j),
        date(2020, 1, 1),
        Decimal(1),
        b"x",
        10**400,  # beyond a float
    ],
)
def test_what_is_neither_is_nothing(value: Any) -> None:
    assert plain(value) is None


def test_nested_mappings_are_flattened_with_their_keys_joined() -> None:
    nested = {"a": {"b": {"c": 1}, "d": {}}, 2: [3]}
    assert flattened(nested) == {"a.b.c": 1, "a.d": {}, "2": [3]}  # type: ignore[arg-type]
    assert flattened({"a": {"b": 1}}, "/") == {"a/b": 1}


@pytest.mark.parametrize(
    ("name", "tracked"),
    [
        ("loss", "train/loss"),
        ("eval_loss", "eval/loss"),
        ("eval_on_a_loss", "eval/on_a_loss"),
        ("test_loss", "test/loss"),
        ("train_runtime", "train/train_runtime"),
        ("evaluation", "train/evaluation"),
        ("eval/x", "train/eval/x"),
    ],
)
def test_names_are_rewritten_as_transformers_does(name: str, tracked: str) -> None:
    assert tracked_name(name) == tracked


def test_what_measures_time_is_known_by_its_name() -> None:
    assert is_measured("eval_runtime")
    assert is_measured("eval_samples_per_second")
    assert not is_measured("eval_loss")


def test_names_are_made_to_fit() -> None:
    assert fitting_name("a b/ü.c", Limits(key_characters=r"\w/")) == "a_b/ü_c"
    assert fitting_name("abcdef", Limits(key_length=3)) == "abc"
    assert fitting_name("a b", Limits()) == "a b"


def test_parameters_are_made_to_fit_and_what_was_cut_is_said() -> None:
    limits = Limits(parameter_length=5, parameter_count=4, key_length=4)
    given = {"a": "12345", "b": "123456", "long1": 1, "long2": 2, "e": 3}
    fitting, cut = fitting_parameters(given, limits)
    assert fitting == {"a": "12345", "b": "1234…", "long": 1, "lo_2": 2}
    assert set(cut) == {"b", "long1", "long2", "e"}
    assert all(fact in cut[name] for name, fact in (("b", "5"), ("long2", "lo_2"), ("e", "4")))


def test_of_parameters_that_become_the_same_one_that_need_not_change_keeps_its_name() -> None:
    limits = Limits(key_characters=r"\w", key_length=5)
    given = {"a.b": 1, "a-b": 2, "abcdefg": 3, "abcde": 4, "five5": 5}
    fitting, cut = fitting_parameters(given, limits)
    assert fitting == {"a_b": 1, "a_b_2": 2, "abc_2": 3, "abcde": 4, "five5": 5}
    assert set(cut) == {"a-b", "abcdefg"}
