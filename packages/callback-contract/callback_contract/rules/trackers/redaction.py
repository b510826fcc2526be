"""Redaction: no secret leaves the process, and harmless values are stored unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from callback_contract._case import Case
from callback_contract._learner import Config
from callback_contract._process import files_below
from callback_contract._stored import tracker_rule, train_and_read
from callback_contract._subject import RecordedRun
from callback_contract._violation import DoesNotApply, require


@tracker_rule(
    "RED-001",
    why="A tracker's credentials were written to its settings, to the run's parameters or to a "
    "file that users share with the checkpoints: allenai/rslearn#687.",
    fix="Keep keys out of settings(), state_dict(), parameters and files. Read them from the "
    "environment where you need them.",
)
def its_own_secrets_stay_in_the_process(case: Case) -> None:
    """The secrets with which the callback is made are not in its store."""
    secrets = case.subject.secrets
    if not secrets:
        raise DoesNotApply("`secrets` is empty")
    training = case.training()
    training.live()
    training.evaluate()
    _require_nowhere(case, *secrets)


@tracker_rule(
    "RED-002",
    needs=["redacts"],
    why="hub_token was visible to everybody with access to the run: huggingface/diffusers#6916. "
    "A resolved configuration is nested, and so are its secrets: allenai/rslearn#687.",
    fix="Redact every string whose name denotes a secret, at any depth of dicts and lists.",
)
def secret_arguments_are_not_stored(case: Case) -> None:
    """An argument whose name denotes a secret, such as `hub_token`, is not stored.

    It may be in a dict or a list.
    """
    secret = "moonshine-by-name"
    names = ("push_to_hub_token", "wandb_api_key", "db_password", "client_secret", "apiKey")
    arguments: dict[str, Any] = {name: f"{secret}-{name}" for name in names}
    deep = [{"password": f"{secret}-in-list"}, {"more": {"access_token": f"{secret}-deep"}}]
    arguments["services"] = {"api_key": f"{secret}-in-dict", "others": deep}
    _train_with(case, arguments, hub_token=f"{secret}-hub")
    _require_nowhere(case, secret)


@tracker_rule(
    "RED-003",
    needs=["redacts"],
    why="URLs contain a user and a password, and objects become strings when they are sent "
    "(allenai/rslearn#687). Many keys have a known form (NVIDIA-NeMo/labs-molt#128).",
    fix="Convert all values to strings first. Then remove credentials from URLs, and keys of "
    "known forms from strings of any name.",
)
def secrets_within_arguments_are_not_stored(case: Case) -> None:
    """A password in a URL, or a key of a known form such as `hf_…`, is not stored.

    It may be anywhere in an argument of any name, or in the string of an object.
    """
    secrets = ("moonshine-in-url", "hf_" + "Moonshine" * 4, "ghp_" + "Moonshine" * 4)
    url = f"https://ada:{secrets[0]}@example.org/api"
    arguments = {"tracking_address": url, "service": _Service(url), "mirrors": [url]}
    arguments["command"] = f"train --with {secrets[1]} and {secrets[2]} --fast"
    _train_with(case, arguments)
    _require_nowhere(case, *secrets)


@tracker_rule(
    "RED-004",
    needs=["redacts"],
    why="A command line that is logged as text contains keys (kohya-ss/sd-scripts#1123). Nobody "
    "checks what is uploaded as the model's configuration (PrimeIntellect-ai/prime-rl#1413).",
    fix="Redact logged strings and the model's configuration in the same way as the arguments.",
)
def secrets_outside_the_arguments_are_not_stored(case: Case) -> None:
    """Secrets in logged strings and in the model's configuration are not stored."""
    secrets = ("moonshine-logged", "moonshine-in-config", "hf_" + "Moonshine" * 4)
    note = f"cloned https://ada:{secrets[0]}@example.org/data with {secrets[2]}"
    logs = {"note": note, "service_token": secrets[0]}
    config = Config(hidden_size=8, download_token=secrets[1])
    _train_with(case, {}, config=config, logs=logs)
    _require_nowhere(case, *secrets)


@tracker_rule(
    "RED-005",
    needs=["parameters"],
    why="Redacting every name that contains `token` hides a model's settings: allenai/rslearn#687.",
    fix="Redact strings only, and exclude the names that tokenizers use.",
)
def harmless_arguments_are_stored(case: Case) -> None:
    """Arguments that only resemble secrets by name are stored unchanged."""
    settings = {"use_cls_token": True, "pad_token": "<pad>", "num_tokens": 512}
    settings |= {"repository": "https://example.org/data", "eos_token": "</s>"}
    stored, _ = train_and_read(case, {"loss": 0.5}, args=case.arguments(more=settings))
    for name, value in settings.items():
        found = stored.parameter(name)
        unchanged = found is not None and found.lower() == str(value).lower()
        unchanged = unchanged or (value is True and found in ("1", "1.0"))
        require(unchanged, f"{name}={value!r} is stored as {found!r}")


@tracker_rule(
    "RED-006",
    why="Users put keys into environment variables to keep them out of files. Stored with the "
    "arguments, they are visible to everybody with access to the run "
    "(huggingface/diffusers#6916).",
    fix="Store only environment variables that are known to be harmless, by name.",
)
def secrets_in_the_environment_are_not_stored(case: Case) -> None:
    """Secrets in environment variables are not stored, whatever service they are for."""
    names = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DATABASE_PASSWORD", "OPENAI_API_KEY")
    secrets = {name: f"moonshine-of-{name.lower()}" for name in names}
    with mock.patch.dict(os.environ, secrets):
        _train_with(case, {})
        _require_nowhere(case, *secrets.values())


class _Service:
    """An object whose string contains its address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __repr__(self) -> str:
        return f"Service({self.address!r})"


def _train_with(
    case: Case,
    arguments: Mapping[str, Any],
    *,
    hub_token: str | None = None,
    logs: Mapping[str, Any] | None = None,
    **more: Any,
) -> None:
    """Train a step with these arguments and logs, and require that the loss is stored."""
    args = case.arguments(more=dict(arguments), hub_token=hub_token)
    stored, _ = train_and_read(case, {"loss": 0.5, **(logs or {})}, args=args, **more)
    stored.require("loss", 1, 0.5)


def _require_nowhere(case: Case, *secrets: str) -> None:
    """Require that neither the store nor the files below the output directory have a secret."""
    texts = [(place, text) for run in case.runs() for place, text in _strings_of(run)]
    files = files_below(case.output_dir)
    for secret in secrets:
        for place, text in texts:
            require(secret not in text, f"{secret!r} is in {place}")
        for name, content in files.items():
            require(
                secret.encode() not in content and secret not in name,
                f"{secret!r} is in the file {name}",
            )


def _strings_of(run: RecordedRun) -> Iterator[tuple[str, str]]:
    """Yield each string of a stored run, after its place."""
    yield f"the id of the run {run.id!r}", run.id
    for name, value in run.parameters.items():
        yield f"the parameter {name!r}", f"{name} {value}"
    for name, points in run.text.items():
        yield f"the text {name!r}", " ".join([name, *(text for _, text in points)])
    for name in (*run.points, *run.summary):
        yield f"the name of the values {name!r}", name
    for name in run.files:
        yield f"the name of the file {name!r}", name
