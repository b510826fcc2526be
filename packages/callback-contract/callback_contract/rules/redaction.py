"""Redaction: what is a secret leaves the process in no form, and what only looks so stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callback_contract._case import Case, Config
from callback_contract._rule import require, rule
from callback_contract._stored import Stored


def _nowhere(
    case: Case,
    secret: str,
    arguments: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    logs: Mapping[str, Any] | None = None,
) -> None:
    """Train a step with these, and say that the rule is broken if `secret` is to be found.

    It is looked for in what the store holds, and in all that is in the output directory.
    """
    training = case.training(args=case.arguments(more=dict(arguments)))
    training.model.config = Config(**(config or {}))
    training.begin()
    training.fire("on_epoch_begin")
    training.step({"loss": 0.5, **(logs or {})})
    training.end()
    for run in Stored(case).runs:
        for holds in ("parameters", "text", "summary"):
            require(secret not in repr(getattr(run, holds)), f"{secret!r} is among the {holds}")
    for file in sorted(case.output_dir.rglob("*")):
        if file.is_file():
            where = file.relative_to(case.output_dir)
            require(secret.encode() not in file.read_bytes(), f"{secret!r} is in the file {where}")


@rule(
    "RED-001",
    of_trackers=True,
    why="hub_token was shown to all who can see the run: huggingface/diffusers#6916.",
    mend="Replace strings whose names say that they are secrets before anything is sent.",
)
def arguments_that_are_secrets_stay_here(case: Case) -> None:
    """An argument whose name says that it is a secret, as `hub_token`, is stored nowhere."""
    secret = "moonshine-by-name"
    names = ("push_to_hub_token", "wandb_api_key", "db_password", "client_secret", "apiKey")
    _nowhere(case, secret, {name: f"{secret}-{name}" for name in names})


@rule(
    "RED-002",
    of_trackers=True,
    why="Addresses come with user and password: allenai/rslearn#687.",
    mend="Take what is before the @ out of every URL, in strings of any name.",
)
def passwords_in_addresses_stay_here(case: Case) -> None:
    """The user and password of a URL in an argument are stored nowhere."""
    secret = "moonshine-in-url"
    _nowhere(case, secret, {"tracking_address": f"https://ada:{secret}@example.org/api"})


@rule(
    "RED-003",
    of_trackers=True,
    why="The resolved configuration is nested, and its secrets are too: allenai/rslearn#687.",
    mend="Look into dicts and lists, as deep as they go.",
)
def nested_secrets_stay_here(case: Case) -> None:
    """A secret in a dict or a list among the arguments is stored nowhere."""
    secret = "moonshine-nested"
    deep = [{"password": f"{secret}-in-list"}, {"more": {"access_token": f"{secret}-deep"}}]
    _nowhere(case, secret, {"services": {"api_key": secret, "others": deep}})


@rule(
    "RED-004",
    of_trackers=True,
    why="What is uploaded as the model's configuration is not looked at: "
    "PrimeIntellect-ai/prime-rl#1413.",
    mend="Treat the model's configuration as the arguments.",
)
def secrets_of_the_configuration_stay_here(case: Case) -> None:
    """A secret in the model's configuration is stored nowhere."""
    secret = "moonshine-in-config"
    _nowhere(case, secret, {}, config={"hidden_size": 8, "download_token": secret})


@rule(
    "RED-005",
    of_trackers=True,
    why="A command line that is logged as text shows its keys: kohya-ss/sd-scripts#1123.",
    mend="Treat strings that are logged as the arguments.",
)
def secrets_in_logged_text_stay_here(case: Case) -> None:
    """The password of a URL in a string that is logged, and a string named so, are not stored."""
    secret = "moonshine-in-text"
    logs = {"note": f"cloned https://ada:{secret}@example.org/data", "service_token": secret}
    _nowhere(case, secret, {}, logs=logs)


@rule(
    "RED-006",
    of_trackers=True,
    why="A key is known by its form wherever it stands: NVIDIA-NeMo/labs-molt#128.",
    mend="Take keys of known forms out of strings of any name.",
)
def keys_of_a_known_form_stay_here(case: Case) -> None:
    """A key that is known by its form, as `hf_…`, is stored nowhere, whatever its name."""
    secret = "hf_" + "Moonshine" * 4
    _nowhere(case, secret, {"command": f"train --push --with {secret} --fast"})


@rule(
    "RED-007",
    of_trackers=True,
    needs=["parameters"],
    why="Redacting all that is named token hides a model's settings: allenai/rslearn#687.",
    mend="Redact strings only, and leave out the names that tokenizers use.",
)
def what_only_looks_like_a_secret_stays(case: Case) -> None:
    """Settings that are named as secrets are, but are none, are stored as they are."""
    settings = {"use_cls_token": True, "pad_token": "<pad>", "num_tokens": 512}
    training = case.training(args=case.arguments(more=settings))
    training.begin()
    training.step({"loss": 0.5})
    training.end()
    stored = Stored(case)
    for name, value in settings.items():
        found = stored.parameter(name)
        require(found == str(value), f"{name!r} was {value!r} and is stored as {found!r}")


class _Service:
    """An object that tells its address where it is written as a string."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __repr__(self) -> str:
        return f"Service({self.address!r})"


@rule(
    "RED-008",
    of_trackers=True,
    why="What is no string becomes one when it is sent, with all it shows: allenai/rslearn#687.",
    mend="Make strings of all values first, and take the secrets out of those.",
)
def secrets_of_objects_stay_here(case: Case) -> None:
    """The password of a URL that an object shows, among the arguments, is stored nowhere."""
    secret = "moonshine-in-object"
    _nowhere(case, secret, {"service": _Service(f"https://ada:{secret}@example.org")})
