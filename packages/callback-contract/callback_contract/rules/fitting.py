"""Trackers: names and values are within what they take, and without what is secret."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from callback_contract._case import Case
from callback_contract._heard import heard, trained
from callback_contract._rule import require, rule
from callback_contract._stored import said


@rule(
    "TRK-005",
    since=(1, 1),
    needs=["tracking"],
    why="A name with a parenthesis, or one that is too long, makes the store refuse the log: "
    "verl-project/verl#119, huggingface/sentence-transformers#2725.",
    mend="Say limits.key_characters and limits.key_length, and leave the rest to TrackerCallback.",
)
def names_are_within_the_limits(case: Case) -> None:
    """Names have the characters and the length that the tracker takes; what is cut is named."""
    limits = {"key_characters": r"\w/", "key_length": 12}
    callback, told = heard(case, limits=limits)
    callback.tracker.parameters_of = lambda arguments, config: {}
    logs = {"a(b)": 1.0, "eleven_chars": 2.0, "eleven_other": 3.0, "six_ch": 4.0, "eval_x y": 5.0}
    with said() as lines:
        trained(case, callback, logs, logs)
    names = {point[0] for call in told.calls("log_metrics") for point in call["points"]}
    expected = {"train/a_b_", "train/eleven", "train/six_ch", "eval/x_y", "train/epoch"}
    require(names == expected, f"of {[*logs]} the tracker was told {sorted(names)}")
    text = "\n".join(lines)
    for name, why in (
        ("eleven_chars", "its name is cut to train/eleven"),
        ("eleven_other", "has the name of another: train/eleven"),
    ):
        require(f"{name}: {why}" in text, f"no warning says '{name}: {why}': {lines}")
    unnamed = "six_ch" not in text and "a(b)" not in text
    require(unnamed, f"names that were not cut are named: {lines}")


@rule(
    "TRK-006",
    since=(1, 1),
    needs=["tracking"],
    why="An argument of more than 250 characters, and more than 100 of them, ended trainings: "
    "huggingface/transformers#8849, huggingface/transformers#11342.",
    mend="Say limits.parameter_length and parameter_count, and leave the rest to TrackerCallback.",
)
def parameters_are_within_the_limits(case: Case) -> None:
    """Parameters have the length and the count that the tracker takes; each that is cut is named.

    Of one that is cut, the beginning is kept, and a sign says that it goes on.
    """
    callback, told = heard(case, limits={"parameter_length": 10, "parameter_count": 4})
    callback.tracker.parameters_of = lambda arguments, config: {
        "whole": "0123456789", "long": "0123456789a", "number": 0.5, "list": [1, 2],
        "fifth": 5, "sixth": 6,
    }  # fmt: skip
    with said() as lines:
        trained(case, callback, {"loss": 0.5})
    found = told.calls("log_parameters")[0]["parameters"]
    expected = {"whole": "0123456789", "long": "012345678…", "number": 0.5, "list": [1, 2]}
    require(found == expected, f"the tracker was told {found}")
    text = "\n".join(lines)
    for name, why in (
        ("long", "cut to 10 characters"),
        ("fifth", "left out: more than 4 parameters"),
        ("sixth", "left out: more than 4 parameters"),
    ):
        require(f"{name}: {why}" in text, f"no warning says '{name}: {why}': {lines}")
    callback, told = heard(case, "short", limits={"key_characters": r"\w", "key_length": 5})
    callback.tracker.parameters_of = lambda arguments, config: {
        "a.b": 1, "a-b": 2, "abcdefg": 3, "abcde": 4, "five5": 5,
    }  # fmt: skip
    with said() as lines:
        trained(case, callback, {"x": 0.5})
    found = told.calls("log_parameters")[0]["parameters"]
    require(found == {"a_b": 1, "abcde": 3, "five5": 5}, f"the tracker was told {found}")
    text = "\n".join(lines)
    for named in (
        "a-b: left out: has the name of another: a_b",
        "abcdefg: its name is cut to abcde",
        "abcde: left out: has the name of another: abcde",
    ):
        require(named in text, f"no warning says {named!r}: {lines}")
    require("five5" not in text, f"one that was not cut is named: {lines}")


@rule(
    "TRK-018",
    since=(1, 1),
    needs=["tracking"],
    why="What a store does not take made it refuse the rest (facebookresearch/gcm#165), and what "
    "is left out without a word is looked for in vain (huggingface/transformers#4883).",
    mend="Say in Limits what the store takes.",
)
def what_a_tracker_cannot_take_is_named(case: Case) -> None:
    """A tracker gets neither text nor what is not finite where it takes none; both are named."""
    callback, told = heard(case, limits={"text": False, "non_finite": False})
    logs = {"loss": 0.5, "note": "a", "nan": math.nan, "infinite": -math.inf, "flag": True}
    logs |= {"list": [1], "large": 10**400, "date": _Scalar(ValueError("no number"))}
    with said() as lines:
        trained(case, callback, logs)
    names = sorted({point[0] for call in told.calls() for point in call["points"]})
    require(names == ["train/epoch", "train/flag", "train/loss"], f"it was sent {names}")
    text = "\n".join(lines)
    for part in (
        "list: it is a list, not a number", "large: it is too large",
        "date: it is a _Scalar, not a number", "note: it is text", "nan: it was nan at step 1",
    ):  # fmt: skip
        require(part in text, f"no warning says {part!r}: {lines}")
    require("and 1 more" in text, f"that there is a sixth is not said: {lines}")
    callback, told = heard(case, "five", limits={"text": False})
    with said() as lines:
        trained(case, callback, {"loss": 0.5, **{f"note {n}": "a" for n in range(5)}})
    require(" more)" not in str(lines), f"of five, it said {lines}")
    callback, told = heard(case, "other")
    trained(
        case,
        callback,
        {"loss": math.nan, "note": "a", "low": -math.inf, "count": 3, "kind": _Text("k")}
        | {"most": int(sys.float_info.max)},
    )
    sent = {point[0]: point[1] for call in told.calls() for point in call["points"]}
    whole = math.isnan(sent["train/loss"]) and sent["train/low"] == -math.inf
    require(whole and sent["train/note"] == "a", f"one that takes all was sent {sent}")
    require(sent["train/count"] == 3 and sent["train/kind"] == "k", f"it was sent {sent}")
    require(sent.get("train/most") == sys.float_info.max, f"it was sent {sent}")


class _Text(str):
    """A string of another class, as an enumeration's."""

    def __str__(self) -> str:
        return "shown"


class _Scalar:
    """A scalar that cannot be read."""

    shape = ()

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __float__(self) -> float:
        raise self.error


@rule(
    "TRK-024",
    since=(1, 1),
    needs=["tracking"],
    why="What is secret for a program is nothing that anybody could know by its name or form: "
    "kohya-ss/sd-scripts#1123.",
    mend="Hand redact on to TrackerCallback.",
)
def names_that_the_user_redacts_are_redacted(case: Case) -> None:
    """Values of names in `redact` and CALLBACKS_REDACT are redacted, for all trackers.

    So they are in logs, of any case.
    """
    was = os.environ.get("CALLBACKS_REDACT")
    os.environ["CALLBACKS_REDACT"] = " patient , ward"
    try:
        first, told = heard(case)
        second, told_second = heard(case, "second")
        second.redact = ("Client",)
        args = case.arguments(more={"client": "moon", "ward": 7, "a": {"patient": ["moon"]}})
        _train_more(case, (first, second), args)
    finally:
        del os.environ["CALLBACKS_REDACT"]
        if was is not None:
            os.environ["CALLBACKS_REDACT"] = was
    for of in (told, told_second):
        found = of.calls("log_parameters")[0]["parameters"]
        shown = (found["client"], found["ward"], found["a.patient"])
        require(
            shown == ("[redacted]",) * 3 and of.points("train/client") == [(1, "[redacted]")],
            f"of names that are redacted it was told {shown} and {of.points('train/client')}",
        )


def _train_more(case: Case, callbacks: Sequence[Any], args: Any) -> None:
    training = case.training(*callbacks, args=args)
    training.begin()
    training.fire("on_epoch_begin")
    training.step({"loss": 0.5, "client": "moon"})
    training.end()


@rule(
    "TRK-028",
    since=(1, 1),
    needs=["tracking"],
    why="What takes too much out of a command line makes a run that nobody can repeat "
    "(allenai/rslearn#687), and what takes too little shows a key (kohya-ss/sd-scripts#1123).",
    mend="Leave redaction to TrackerCallback.",
)
def of_a_string_only_the_secret_is_redacted(case: Case) -> None:
    """Of a string, the secret is redacted and nothing else: quotes, names and other parts stay."""
    strings = {
        "--api-key=moon --lr 0.5": "--api-key=[redacted] --lr 0.5",
        "{'password': 'moon shine', 'lr': 1}": "{'password': '[redacted]', 'lr': 1}",
        'token="moon", pad_token="<pad>"': 'token="[redacted]", pad_token="<pad>"',
        "https://a.example/b?x=1&token=moon&y=2#z": "https://a.example/b?x=1&token=[redacted]&y=2#z",
        "Authorization: Bearer moon": "Authorization: [redacted]",
        "https://ada:moon@a.example/b": "https://[redacted]@a.example/b",
        "git+ssh://git@a.example/b": "git+ssh://git@a.example/b",
        "num_tokens=512, lr: 0.5": "num_tokens=512, lr: 0.5",
    }
    more: dict[str, Any] = {f"text_{n}": text for n, text in enumerate(strings)}
    more |= {"api_key": "", "password": 7, "hub_token": None, "secret": {"a": "b"}}
    callback, told = heard(case)
    trained(case, callback, {"loss": 0.5}, args=case.arguments(more=more))
    found = told.calls("log_parameters")[0]["parameters"]
    for number, (text, expected) in enumerate(strings.items()):
        shown = found[f"text_{number}"]
        require(shown == expected, f"of {text!r} it was told {shown!r} and not {expected!r}")
    kept = {name: found[name] for name in ("api_key", "password", "hub_token", "secret.a")}
    require(
        kept == {"api_key": "", "password": 7, "hub_token": None, "secret.a": "b"},
        f"what is no string was redacted: {kept}",
    )
