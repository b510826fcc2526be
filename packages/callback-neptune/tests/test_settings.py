"""Arguments and environment variables, and the errors about invalid ones."""

from __future__ import annotations

import base64
import inspect
from pathlib import Path
from typing import Any

import neptune
import pytest
from neptune_server import token_for

from callback_contract.testing import missing
from callback_neptune import NeptuneCallback, NeptuneTracker
from callback_neptune.arguments import run_arguments


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"log_checkpoints": "all"}, ["log_checkpoints", "'all'", "same, last, best"]),
        ({"base_namespace": "/"}, ["base_namespace", "'/'"]),
        ({"base_namespace": 3}, ["base_namespace", "3"]),
        ({"name": " "}, ["name", "' '"]),
        ({"log_parameters": "no"}, ["log_parameters", "'no'", "True, False"]),
        ({"run": "RUN-1"}, ["run", "'RUN-1'", "neptune.init_run"]),
        ({"with_id": "RUN-1", "custom_run_id": "x"}, ["with_id", "custom_run_id"]),
    ],
)
def test_an_error_names_the_invalid_argument_and_its_value(
    arguments: dict[str, Any], expected: list[str]
) -> None:
    with pytest.raises(ValueError) as raised:
        NeptuneCallback(**arguments)
    assert all(part in str(raised.value) for part in expected)


@pytest.mark.parametrize("token", ["my-secret", base64.b64encode(b'{"secret": 1}').decode()])
def test_an_invalid_token_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    with pytest.raises(ValueError, match="api_token") as raised:
        NeptuneCallback(api_token=token)
    monkeypatch.setenv("NEPTUNE_API_TOKEN", token)
    with pytest.raises(ValueError, match="NEPTUNE_API_TOKEN") as from_environment:
        NeptuneCallback()
    assert token not in f"{raised.value} {from_environment.value}"
    NeptuneCallback(mode="offline")  # needs no token


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(TypeError, match=r"'tag'.* tags, with_id"):
        NeptuneCallback(tag=["a"])


def test_all_arguments_of_neptune_are_accepted() -> None:
    known = inspect.signature(neptune.Run.__init__).parameters
    own = {"self", "project", "api_token", "name", "kwargs"}
    exclusive = {"with_id", "custom_run_id"}
    rest = dict.fromkeys(set(known) - own - exclusive)
    assert run_arguments(rest) == rest
    for name in exclusive:
        assert run_arguments({name: "x"})


def test_the_defaults_are_those_of_transformers() -> None:
    parameters = inspect.signature(NeptuneCallback).parameters
    defaults = {
        "api_token": None,
        "project": None,
        "name": None,
        "base_namespace": "finetuning",
        "run": None,
        "log_parameters": True,
        "log_checkpoints": None,
    }
    assert {name: parameters[name].default for name in defaults} == defaults
    assert parameters["neptune_run_kwargs"].kind is inspect.Parameter.VAR_KEYWORD


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"api_token": token_for("http://127.0.0.1")}, "NEPTUNE_API_TOKEN"),
        ({"async_lag_callback": print}, "async_lag_callback"),
        ({"proxies": {"http": "http://me:word@proxy"}}, "proxies"),
        ({"capture_hardware_metrics": True}, "capture_hardware_metrics"),
    ],
)
def test_a_delivery_process_refuses_arguments_that_it_cannot_receive(
    arguments: dict[str, Any], name: str
) -> None:
    NeptuneCallback(**arguments)
    with pytest.raises(ValueError, match=name):
        NeptuneCallback(**arguments, delivery="process")


def test_a_delivery_process_refuses_an_offline_run_of_this_process(tmp_path: Path) -> None:
    mine = neptune.init_run(mode="offline", git_ref=False, source_files=[])
    with pytest.raises(ValueError, match=r"run .*offline.*'process'"):
        NeptuneCallback(run=mine, delivery="process")
    mine.stop()


def test_a_tracker_from_settings_keeps_the_project_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEPTUNE_PROJECT", "team/first")
    settings = NeptuneTracker().settings()
    monkeypatch.setenv("NEPTUNE_PROJECT", "team/second")
    assert settings is not None
    assert NeptuneTracker(**settings).project == "team/first"


def test_a_tracker_from_settings_has_the_private_arguments() -> None:
    token = token_for("http://127.0.0.1")
    first = NeptuneTracker(api_token=token, async_lag_callback=print, tags=["a"])
    settings = first.settings()
    assert settings is not None
    assert token not in str(settings)
    again = NeptuneTracker(**settings)
    assert (again.api_token, again.run_arguments) == (first.api_token, first.run_arguments)
    elsewhere = NeptuneTracker(**{**settings, "kept": "of another process"})
    assert (elsewhere.api_token, elsewhere.run_arguments) == (None, {"tags": ["a"]})


def test_without_its_sdk_the_callback_is_refused_when_it_is_made() -> None:
    with missing("neptune"), pytest.raises(ModuleNotFoundError) as refused:
        NeptuneCallback(mode="offline")
    assert refused.value.name == "neptune"
    assert "NeptuneCallback" in str(refused.value)
    assert "pip install neptune" in str(refused.value)


def test_tags_and_description_have_no_secrets() -> None:
    key = "hf_" + "Moonshine" * 4
    found = run_arguments({"tags": ["first", f"with {key}"], "description": f"password={key}"})
    assert found["tags"][0] == "first"
    assert key not in str(found)
