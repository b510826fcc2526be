"""Redaction: no secret leaves the process, and what only looks like one stays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

from callback_contract._case import Case
from callback_contract._learner import Config
from callback_contract._process import files_below
from callback_contract._stored import Stored, log_steps, stored_of, tracker_rule
from callback_contract._subject import RecordedRun
from callback_contract._violation import DoesNotApply, require


@tracker_rule(
    "RED-001",
    why="What a tracker is given to log in with was written to its settings, its run's parameters "
    "or a file that is shared with the checkpoints: allenai/rslearn#687.",
    mend="Keep keys out of settings(), state_dict(), parameters and files; read them again from "
    "the environment where they are needed.",
)
def its_own_secrets_stay_in_the_process(case: Case) -> None:
    """The secrets that the callback is made with are not in its store."""
    secrets = case.subject.secrets
    if not secrets:
        raise DoesNotApply("the test names no secrets of the callback: `secrets` is empty")
    training = case.training()
    training.live()
    training.evaluate()
    _require_nowhere(case, *secrets)


@tracker_rule(
    "RED-002",
    needs=["redacts"],
    why="hub_token was shown to all who can see the run: huggingface/diffusers#6916. The resolved "
    "configuration is nested, and its secrets are too: allenai/rslearn#687.",
    mend="Replace strings whose names say that they are secrets, as deep as dicts and lists go.",
)
def arguments_that_are_secrets_are_not_stored(case: Case) -> None:
    """An argument whose name says that it is a secret, such as `hub_token`, is stored nowhere.

    It may be in a dict or a list.
    """
    secret = "moonshine-by-name"
    names = ("push_to_hub_token", "wandb_api_key", "db_password", "client_secret", "apiKey")
    arguments: dict[str, Any] = {name: f"{secret}-{name}" for name in names}
    deep = [{"password": f"{secret}-in-list"}, {"more": {"access_token": f"{secret}-deep"}}]
    arguments["services"] = {"api_key": f"{secret}-in-dict", "others": deep}
    _require_nowhere(_train_with(case, arguments, hub_token=f"{secret}-hub"), secret)


@tracker_rule(
    "RED-003",
    needs=["redacts"],
    why="Addresses come with user and password, and what is no string becomes one when it is sent "
    "(allenai/rslearn#687); a key is known by its form (NVIDIA-NeMo/labs-molt#128).",
    mend="Make strings of all values first; take what is before the @ out of URLs, and keys of "
    "known forms out of strings of any name.",
)
def secrets_within_arguments_are_not_stored(case: Case) -> None:
    """A password in a URL and a key of a known form, such as `hf_…`, are stored nowhere.

    They may be anywhere in an argument of any name, or be shown by an object.
    """
    secrets = ("moonshine-in-url", "hf_" + "Moonshine" * 4, "ghp_" + "Moonshine" * 4)
    url = f"https://ada:{secrets[0]}@example.org/api"
    arguments = {"tracking_address": url, "service": _Service(url), "mirrors": [url]}
    arguments["command"] = f"train --with {secrets[1]} and {secrets[2]} --fast"
    _require_nowhere(_train_with(case, arguments), *secrets)


@tracker_rule(
    "RED-004",
    needs=["redacts"],
    why="A command line that is logged as text shows its keys (kohya-ss/sd-scripts#1123); what is "
    "uploaded as the model's configuration is not looked at (PrimeIntellect-ai/prime-rl#1413).",
    mend="Treat strings that are logged, and the model's configuration, as the arguments.",
)
def secrets_beside_the_arguments_are_not_stored(case: Case) -> None:
    """Secrets in strings that are logged, and in the model's configuration, are stored nowhere."""
    secrets = ("moonshine-logged", "moonshine-in-config", "hf_" + "Moonshine" * 4)
    note = f"cloned https://ada:{secrets[0]}@example.org/data with {secrets[2]}"
    logs = {"note": note, "service_token": secrets[0]}
    config = {"hidden_size": 8, "download_token": secrets[1]}
    _require_nowhere(_train_with(case, {}, config=config, logs=logs), *secrets)


@tracker_rule(
    "RED-005",
    needs=["parameters"],
    why="Redacting all that is named token hides a model's settings: allenai/rslearn#687.",
    mend="Redact strings only, and leave out the names that tokenizers use.",
)
def what_only_looks_like_a_secret_stays(case: Case) -> None:
    """Settings that have a name like a secret's, but are none, are stored as they are."""
    settings = {"use_cls_token": True, "pad_token": "<pad>", "num_tokens": 512}
    settings |= {"repository": "https://example.org/data", "eos_token": "</s>"}
    stored, _ = stored_of(case, {"loss": 0.5}, args=case.arguments(more=settings))
    for name, value in settings.items():
        found = stored.parameter(name)
        kept = found is not None and found.lower() == str(value).lower()
        kept = kept or (value is True and found in ("1", "1.0"))
        require(kept, f"{name}={value!r} is stored as {found!r}")


@tracker_rule(
    "RED-006",
    why="Environment variables are where keys are put so that no file has them; with the "
    "arguments they are shown to all who can see the run (huggingface/diffusers#6916).",
    mend="Of the environment, store only variables that are known to be harmless, by name.",
)
def secrets_of_the_environment_are_not_stored(case: Case) -> None:
    """Secrets in environment variables are stored nowhere, whoever they are for."""
    names = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DATABASE_PASSWORD", "OPENAI_API_KEY")
    secrets = {name: f"moonshine-of-{name.lower()}" for name in names}
    with mock.patch.dict(os.environ, secrets):
        _require_nowhere(_train_with(case, {}), *secrets.values())


class _Service:
    """An object that shows its address where it is written as a string."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __repr__(self) -> str:
        return f"Service({self.address!r})"


def _train_with(
    case: Case,
    arguments: Mapping[str, Any],
    *,
    config: Mapping[str, Any] | None = None,
    logs: Mapping[str, Any] | None = None,
    **changed: Any,
) -> Case:
    """Train a step with these, require that the loss is stored beside them, and return `case`."""
    training = case.training(args=case.arguments(more=dict(arguments), **changed))
    training.model.config = Config(**(config or {}))
    training.begin()
    log_steps(training, {"loss": 0.5, **(logs or {})})
    training.end()
    Stored(case).require("loss", 1, 0.5)
    return case


def _require_nowhere(case: Case, *secrets: str) -> None:
    """Require that the store and the files below the output directory hold none of these."""
    places = [(where, text) for run in case.runs() for where, text in _strings_of(run)]
    files = files_below(case.output_dir)
    for secret in secrets:
        for where, text in places:
            require(secret not in text, f"{secret!r} is {where}")
        for name, content in files.items():
            require(
                secret.encode() not in content and secret not in name,
                f"{secret!r} is in the file {name}",
            )


def _strings_of(run: RecordedRun) -> Iterator[tuple[str, str]]:
    """Yield what the store has of a run as strings, each with where it is."""
    yield f"in the id of the run {run.id!r}", run.id
    for name, value in run.parameters.items():
        yield f"in the parameter {name!r}", f"{name} {value}"
    for name, points in run.text.items():
        yield f"in the text {name!r}", " ".join([name, *(text for _, text in points)])
    for name in (*run.points, *run.summary):
        yield f"in the name of the values {name!r}", name
    for name in run.files:
        yield f"in the name of the file {name!r}", name
