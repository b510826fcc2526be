"""What trackers are sent: plain values, their names, what fits, and no secrets."""

from __future__ import annotations

import enum
import math
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from callback_core.tracking import Limits, Redaction, flattened, tracked_name
from callback_core.tracking.limits import fitting_name, fitting_parameters
from callback_core.tracking.naming import is_measured
from callback_core.tracking.redaction import REDACTED, VARIABLE, scrubbed
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


@pytest.mark.parametrize(
    "name",
    [
        *("token", "hub_token", "push_to_hub_token", "HF_TOKEN", "hfToken", "use_auth_token"),
        *("api_key", "apiKey", "API-KEY", "wandb_api_key", "api_keys", "access_tokens"),
        *("password", "db.passwd", "passphrase", "client_secret", "secret", "secrets"),
        *("aws_secret_access_key", "private_key", "ssh_key", "Authorization", "credentials"),
    ],
)
def test_a_name_that_says_so_makes_a_secret(name: str) -> None:
    assert Redaction().of({name: "abc"}) == {name: REDACTED}
    assert Redaction().of({"deep": [{name: ["abc"]}]}) == {"deep": [{name: [REDACTED]}]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_cls_token", True),
        ("use_cls_token", "always"),
        ("pad_token", "<pad>"),
        ("eos_token", "</s>"),
        ("forced_bos_token", "<s>"),
        ("mask_token", "[MASK]"),
        ("image_token", "<image>"),
        ("num_tokens", "12"),
        ("max_new_tokens", 100),
        ("token_type", "x"),
        ("tokenizer", "bert"),
        ("key_file", "/a/b"),
        ("num_key_value_heads", 8),
        ("hub_token", None),
        ("hub_token", ""),
        ("monkey", "ape"),
        ("secretary", "name"),
        ("password_length", 3),
        ("password", 7),
        ("secret", {"a": "b"}),
        ("run", "https://example.com:8080/a?b=c"),
        ("url", "ssh://git@github.com/a/b"),
        ("text", "loss=1.0, pad_token='<pad>', accuracy: 3"),
        ("mail", "someone@example.com"),
    ],
)
def test_what_only_looks_alike_is_left_as_it_is(name: str, value: Any) -> None:
    assert Redaction().of({name: value}) == {name: value}


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("https://me:pass@host/x", "pass"),
        ("postgres://me:p@ss@host/db", "p@ss"),
        ("https://abcdef@github.com/x", "abcdef"),
        ("see https://host/a?x=1&access_token=abc&y=2 there", "abc"),
        ("https://host/a?sig=a%2Fb", "a%2Fb"),
        ("hf_" + "aB3" * 10, "aB3"),
        ("key AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
        ("ghp_" + "a" * 36, "aaa"),
        ("--api_key=abc --lr=1", "abc"),
        ("Hub(token='a b c', x=1)", "a b c"),
        ('{"password": "abc"}', "abc"),
        ("Authorization: Bearer abc", "abc"),
        ("AccountName=x;AccountKey=abc;", "abc"),
    ],
)
def test_secrets_in_a_text_are_taken_out_of_it(text: str, secret: str) -> None:
    assert secret not in scrubbed(text)
    assert REDACTED in scrubbed(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--api-key=moon --lr 0.5", "--api-key=* --lr 0.5"),
        ("{'password': 'moon shine', 'lr': 1}", "{'password': '*', 'lr': 1}"),
        ('token="moon", pad_token="<pad>"', 'token="*", pad_token="<pad>"'),
        ("Hub(token='abc', x=1)", "Hub(token='*', x=1)"),
        ("https://a.example/b?x=1&token=moon&y=2#z", "https://a.example/b?x=1&token=*&y=2#z"),
        ("https://me:pass@host/x?token=a&b=c", "https://*@host/x?token=*&b=c"),
        ("Authorization: Bearer moon", "Authorization: *"),
        ("git+ssh://git@a.example/b", "git+ssh://git@a.example/b"),
        ("num_tokens=512, lr: 0.5", "num_tokens=512, lr: 0.5"),
    ],
)
def test_what_stands_around_a_secret_stays(text: str, shown: str) -> None:
    assert scrubbed(text) == shown.replace("*", REDACTED)


def test_the_user_s_names_are_secrets_whatever_they_look_like(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, " Patient , ")
    redaction = Redaction(["seed"])
    redaction.extend(["Cls_Token"])
    given = {"seed": 1, "PATIENT": {"name": "x"}, "cls_token": "c", "other": 2}
    assert redaction.of(given) == {
        "seed": REDACTED,
        "PATIENT": REDACTED,
        "cls_token": REDACTED,
        "other": 2,
    }


def test_what_is_no_plain_value_is_looked_at_as_the_text_that_it_becomes() -> None:
    class Client:
        def __repr__(self) -> str:
            return "Client(url='https://me:pass@host', token='abc')"

    given = {"client": Client(), "path": Path("/a"), 3: {1}, "password": b"abc"}
    found = Redaction().of(given)
    assert found == {
        "client": f"Client(url='https://{REDACTED}@host', token='{REDACTED}')",
        "path": str(Path("/a")),
        "3": [1],
        "password": REDACTED,
    }
