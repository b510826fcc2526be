"""What is a secret, and what only looks like one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from secrets_for_tests import HARMLESS, KEYS, NAMES, SECRET, TEXTS
from tracking_for_tests import TrackedArguments, Training, calls, tracked

from callback_core import TrainerState
from callback_core.tracking import Redaction
from callback_core.tracking.redaction import VARIABLE
from callback_core.tracking.scrubbing import REDACTED, scrubbed

SENTENCES = (
    "{}",
    "use {} now",
    "x={}",
    "'{}'",
    "({})",
    "a/{}",
    "v:{},",
    "{}\n",
    "run-{}",
    "run_{}",
)
"""What may stand around a key."""


@pytest.mark.parametrize("name", NAMES)
def test_a_string_with_a_secret_s_name_is_hidden(name: str) -> None:
    assert Redaction().of({name: SECRET}) == {name: REDACTED}


@pytest.mark.parametrize(("name", "value"), HARMLESS)
def test_a_string_that_only_resembles_a_secret_is_shown(name: str, value: str) -> None:
    assert Redaction().of({name: value}) == {name: value}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_known_form_is_hidden_wherever_it_stands(key: str) -> None:
    for sentence in SENTENCES:
        shown = scrubbed(sentence.format(key))
        assert key[-12:] not in shown
        assert REDACTED in shown


@pytest.mark.parametrize("text", TEXTS)
def test_a_secret_in_a_text_is_hidden(text: str) -> None:
    shown = scrubbed(text.replace("*", SECRET))
    assert SECRET not in shown
    assert "YWRhOm1v" not in shown
    assert REDACTED in shown


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        ("aBcDeFgHiJkLmN12", True),
        ("aBcDeFgHiJkLmNo1", False),
        ("aBcDeFgHiJkLm12", False),
        ("g1h2i3j4klmnopqrstuv", True),
        ("g1h2i3j4klmnopqrstuvwxyz", True),
        ("g1h2i3jklmnopqrstuvw", False),
        ("g1h2i3j4klmnopqrstu", False),
        ("abcdefabcdefabcdefabcd12", True),
        ("ABCDEFABCDEFABCDEFABCD12", True),
        ("abcdefabcdefabcdefabc12", False),
        ("12345678901234567890", False),
    ],
)
def test_with_a_name_that_may_be_a_secret_s_what_looks_drawn_at_random_is_hidden(
    value: str, hidden: bool
) -> None:
    for name in ("key", "access_key_id", "password_id"):
        assert Redaction().of({name: value}) == {name: REDACTED if hidden else value}


@pytest.mark.parametrize(
    "value",
    [
        {"services": [{"name": "API_KEY", "value": SECRET}]},
        {"secrets": {"wandb": SECRET}},
        {"secrets": {"services": {"wandb": [SECRET]}}},
        {"credentials": {"user": "ada", "other": SECRET}},
        {"api_keys": {"openai": SECRET}},
        {"tokens": {"hf": SECRET}},
        {"keys": {"wandb": SECRET}},
        {"auth": {"wandb": SECRET}},
        {"auth": ("ada", SECRET)},
        {"passwords": [SECRET]},
        {"password": SECRET.encode()},
        {"headers": [("Authorization", SECRET)]},
        {"argv": ["train.py", "--api-key", SECRET]},
        {"settings": json.dumps({"hub": {"token": SECRET}})},
        {f"password={SECRET}": 1},
    ],
)
def test_a_secret_in_a_container_is_hidden(value: Any) -> None:
    shown = json.dumps(Redaction().of(value))
    assert SECRET not in shown
    assert REDACTED in shown


@pytest.mark.parametrize(
    "value",
    [
        {"auth": {"type": "basic", "url": "https://host"}},
        {"tokens": {"pad": "<pad>", "count": "5"}},
        {"keys": {"image": "pixel_values", "label": "labels"}},
        {"credentials": {"path": "/a/b.json", "type": "file"}},
        {"config": json.dumps({"hidden_size": 8, "pad_token": "<pad>"})},
        {"argv": ["train.py", "--tokenizer-name", "bert", "--max-new-tokens", "5"]},
        {"api_key": "${WANDB_API_KEY}"},
        {"name": "lr", "value": "0.5"},
    ],
)
def test_a_harmless_container_is_shown(value: Any) -> None:
    assert Redaction().of(value) == value


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "a_",
        "key=",
        "token=(",
        "token='",
        "a://b:",
        "a:b@",
        "sk-",
        "eyJ_",
        "<a></",
        "M_",
        "--a ",
    ],
)
def test_no_text_takes_long_to_search(part: str) -> None:
    """The text is so long that a square of its length would exceed the test's time limit."""
    assert scrubbed(part * (200_000 // len(part)))


class Model:
    """A model whose configuration has secrets."""

    class config:
        @staticmethod
        def to_dict() -> dict[str, Any]:
            return {"auth": SECRET, "hub": [f"https://ada:{SECRET}@host"]}


@dataclass
class Arguments(TrackedArguments):
    """Arguments with secrets in them."""

    report: Any = None


def test_no_secret_reaches_the_journal_or_the_tracker(tmp_path: Path, out: Path) -> None:
    key = KEYS[0]
    state = TrainerState(
        max_steps=9,
        is_hyper_param_search=True,
        trial_name=f"trial of {key}",
        trial_params={"wandb_key": SECRET, "lr": 0.1},
    )
    training = Training(tmp_path, [tracked(out, limits={"text": True})], state)
    report = {"nested": [{"db_pwd": SECRET}], "command": f"train.py --passcode {SECRET}"}
    training.args = Arguments(str(tmp_path), run_name=f"run with {key}", report=report)
    training.handler.model = Model()
    training.begin()
    training.step(loss=0.5, note=f"curl -u ada:{SECRET} with {key}", service_token=SECRET)
    training.log(**{f"loss of {key}": 0.5})
    training.end()
    assert calls(out, "log_text")
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        text = file.read_text("utf-8")
        assert SECRET not in text, file
        assert key not in text, file


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


@pytest.mark.parametrize(("value", "hidden"), [("abcdefg12", True), ("abcdefg1", False)])
@pytest.mark.parametrize("name", ["key", "code"])
def test_a_long_key_in_a_url_is_hidden_unless_it_is_a_word(
    name: str, value: str, hidden: bool
) -> None:
    word = f"https://host/a?{name}=abcdefghijkl"
    assert scrubbed(word) == word
    text = f"https://host/a?{name}={{}}&b=1"
    assert scrubbed(text.format(value)) == text.format(REDACTED if hidden else value)


@pytest.mark.parametrize("length", [80, 5_000, 20_000])
def test_a_secret_is_hidden_however_much_text_is_before_it(length: int) -> None:
    before = "a " * (length // 2)
    assert scrubbed(f"{before}password={SECRET}") == f"{before}password={REDACTED}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--api-key=moon --lr 0.5", "--api-key=* --lr 0.5"),
        ("{'password': 'moon shine', 'lr': 1}", "{'password': '*', 'lr': 1}"),
        ('token="moon", pad_token="<pad>"', 'token="*", pad_token="<pad>"'),
        ("Hub(token='abc', x=1)", "Hub(token='*', x=1)"),
        ("api_keys=['moon', ['sun']], lr=1", "api_keys=*, lr=1"),
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
