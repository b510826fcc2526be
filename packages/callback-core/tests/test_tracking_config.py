"""Settings: the argument, or else the variable, or else nothing; and errors that say it all."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from callback_core.tracking.config import (
    choice,
    count,
    directory,
    flag,
    mapping,
    matching,
    seconds,
    setting,
    text,
)

VARIABLE = "LINES_SETTING"
MODES = ("ONLINE", "Offline")
BOOLEANS = "1, ON, YES, TRUE, 0, OFF, NO, FALSE"

Reader = Callable[[str, Any, str | None], Any]

lower = partial(matching, pattern="[a-z]+", demand="lower-case letters")
mode = partial(choice, choices=MODES)

# A reader, two values as arguments, the second as a variable, and what is returned for both.
READERS: dict[str, tuple[Reader, Any, str, Any, Any]] = {
    "text": (text, "given", "set", "given", "set"),
    "matching": (lower, "given", "set", "given", "set"),
    "choice": (mode, "ONLINE", "Offline", "ONLINE", "Offline"),
    "flag": (flag, False, "yes", False, True),
    "count": (count, 0, "7", 0, 7),
    "seconds": (seconds, 1, "2.5", 1.0, 2.5),
    "directory": (directory, "/given", "/set", "/given", "/set"),
    "mapping": (mapping, {"a": 1}, '{"b": 2}', {"a": 1}, {"b": 2}),
}
each_reader = pytest.mark.parametrize("reader", READERS)


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@each_reader
def test_the_argument_comes_before_the_variable(
    reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, given, variable, as_argument, _ = READERS[reader]
    monkeypatch.setenv(VARIABLE, variable)
    assert read("argument", given, VARIABLE) == as_argument


@each_reader
def test_the_variable_counts_where_no_argument_is_given(
    reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, _, variable, _, as_variable = READERS[reader]
    monkeypatch.setenv(VARIABLE, variable)
    assert read("argument", None, VARIABLE) == as_variable


@each_reader
@pytest.mark.parametrize("variable", [None, "", "  "], ids=["unset", "empty", "blank"])
def test_nothing_is_said_by_a_variable_that_is_unset_or_empty(
    reader: str, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = READERS[reader][0]
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    assert read("argument", None, VARIABLE) == ({} if reader == "mapping" else None)


@each_reader
def test_a_setting_without_a_variable_reads_none(
    reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, _, variable, _, _ = READERS[reader]
    monkeypatch.setenv("None", variable)
    assert read("argument", None, None) == ({} if reader == "mapping" else None)


def test_a_value_says_where_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, " set ")
    assert setting("argument", None, VARIABLE) == (VARIABLE, "set", True)
    assert setting("argument", "given", VARIABLE) == ("argument", "given", False)
    assert setting("argument", None, None) == ("argument", None, False)


@pytest.mark.parametrize(
    ("read", "variable", "demand"),
    [
        (lower, "UPPER", "lower-case letters"),
        (lower, "lower9", "lower-case letters"),
        (mode, "sometimes", "one of: ONLINE, Offline"),
        (flag, "perhaps", f"one of: {BOOLEANS}"),
        (count, "-1", "a whole number, 0 or more"),
        (count, "1.5", "a whole number, 0 or more"),
        (seconds, "soon", "seconds, more than 0"),
        (seconds, "0", "seconds, more than 0"),
        (seconds, "nan", "seconds, more than 0"),
        (seconds, "inf", "seconds, more than 0"),
        (mapping, "[1]", 'a JSON object such as {"stage": "test"}'),
    ],
)
def test_a_wrong_variable_is_named_with_its_value_and_what_it_must_be(
    read: Reader, variable: str, demand: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, variable)
    with pytest.raises(ValueError) as raised:
        read("argument", None, VARIABLE)
    assert str(raised.value) == f"{VARIABLE} is {variable!r}, it must be {demand}."


def test_a_variable_that_is_no_json_says_why_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "{stage: test}")
    with pytest.raises(ValueError, match=r"LINES_SETTING is '\{stage: test\}'.*: Expecting"):
        mapping("argument", None, VARIABLE)


@pytest.mark.parametrize(
    ("read", "given", "demand"),
    [
        (text, "", "a string that is not empty"),
        (text, " ", "a string that is not empty"),
        (text, 7, "a string that is not empty"),
        (lower, "", "lower-case letters"),
        (lower, 7, "lower-case letters"),
        (mode, "", "one of: ONLINE, Offline"),
        (mode, True, "one of: ONLINE, Offline"),
        (flag, "yes", "one of: True, False"),
        (flag, 1, "one of: True, False"),
        (count, -1, "a whole number, 0 or more"),
        (count, True, "a whole number, 0 or more"),
        (count, 2.0, "a whole number, 0 or more"),
        (count, "2", "a whole number, 0 or more"),
        (seconds, 0, "seconds, more than 0"),
        (seconds, -1, "seconds, more than 0"),
        (seconds, [], "seconds, more than 0"),
        (directory, "", "a string that is not empty"),
        (directory, 7, "a string that is not empty"),
        (mapping, [("a", 1)], "a mapping"),
        (mapping, "a=1", "a mapping"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value_and_what_it_must_be(
    read: Reader, given: Any, demand: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "not read")
    with pytest.raises(ValueError) as raised:
        read("argument", given, VARIABLE)
    assert str(raised.value) == f"argument is {given!r}, it must be {demand}."


@pytest.mark.parametrize("written", ["1", "on", "Yes", "TRUE", "true "])
def test_a_flag_is_on(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, written)
    assert flag("argument", None, VARIABLE) is True


@pytest.mark.parametrize("written", ["0", "off", "No", "FALSE", " false"])
def test_a_flag_is_off(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, written)
    assert flag("argument", None, VARIABLE) is False


def test_a_choice_is_returned_as_it_is_listed_however_it_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "OFFLINE")
    assert mode("argument", None, VARIABLE) == "Offline"
    assert mode("argument", "online", VARIABLE) == "ONLINE"


def test_a_directory_is_whole_for_a_process_that_runs_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/of-somebody")
    assert directory("argument", Path("runs"), None) == os.path.join(os.getcwd(), "runs")
    monkeypatch.setenv(VARIABLE, "~/runs")
    assert directory("argument", None, VARIABLE) == "/home/of-somebody/runs"


def test_a_mapping_is_a_copy_with_strings_for_names() -> None:
    given = {1: "one"}
    read = mapping("argument", given, None)
    assert read == {"1": "one"}
    read["2"] = "two"
    assert given == {1: "one"}
