"""Arguments and environment variables: what they mean, and what is refused."""

from __future__ import annotations

import base64
import inspect
from pathlib import Path
from typing import Any

import neptune
import pytest
from neptune_server import token_for

from callback_neptune import NeptuneCallback, NeptuneTracker
from callback_neptune.arguments import run_arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"log_checkpoints": "all"},
            "log_checkpoints is 'all', it must be one of: same, last, bes",
        ),
        ({"base_namespace": "/"}, "base_namespace is '/', it must be a name"),
        ({"base_namespace": 3}, "base_namespace is 3, it must be a name"),
        ({"name": " "}, "name is ' ', it must be a string that is not empty"),
        ({"log_parameters": "no"}, "log_parameters is 'no', it must be one of: True, False"),
        ({"run": "RUN-1"}, "run is 'RUN-1', it must be what neptune.init_run returns"),
        ({"with_id": "RUN-1", "custom_run_id": "x"}, "only one of them"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        NeptuneCallback(**arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize("token", ["my-secret", base64.b64encode(b'{"secret": 1}').decode()])
def test_a_wrong_token_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    with pytest.raises(ValueError, match="api_token is no API token") as raised:
        NeptuneCallback(api_token=token)
    monkeypatch.setenv("NEPTUNE_API_TOKEN", token)
    with pytest.raises(ValueError, match="NEPTUNE_API_TOKEN is no API token") as from_environment:
        NeptuneCallback()
    assert token not in f"{raised.value} {from_environment.value}"
    NeptuneCallback(mode="offline")  # which needs none


def test_an_argument_that_neptune_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match=r"no argument 'tag', .* tags, with_id"):
        NeptuneCallback(tag=["a"])


def test_all_arguments_of_neptune_are_known() -> None:
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
    ("arguments", "message"),
    [
        ({"api_token": token_for("http://127.0.0.1")}, "set NEPTUNE_API_TOKEN"),
        ({"async_lag_callback": print}, "async_lag_callback cannot be written to a file"),
        ({"proxies": {"http": "http://me:word@proxy"}}, "proxies cannot be written to a file"),
        ({"capture_hardware_metrics": True}, "would watch the process that delivers"),
    ],
)
def test_a_process_of_its_own_refuses_what_it_cannot_be_told(
    arguments: dict[str, Any], message: str
) -> None:
    NeptuneCallback(**arguments)
    with pytest.raises(ValueError, match=message):
        NeptuneCallback(**arguments, delivery="process")


def test_a_process_of_its_own_refuses_an_offline_run_of_this_one(tmp_path: Path) -> None:
    mine = neptune.init_run(mode="offline", git_ref=False, source_files=[])
    with pytest.raises(ValueError, match="run is offline, and so bound to this process"):
        NeptuneCallback(run=mine, delivery="process")
    mine.stop()


def test_a_tracker_that_is_made_again_has_the_project_of_the_environment_of_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NEPTUNE_PROJECT", "team/first")
    settings = NeptuneTracker().settings()
    monkeypatch.setenv("NEPTUNE_PROJECT", "team/second")
    assert settings is not None
    assert NeptuneTracker(**settings).project == "team/first"


def test_a_tracker_that_is_made_again_has_what_goes_to_no_file() -> None:
    token = token_for("http://127.0.0.1")
    first = NeptuneTracker(api_token=token, async_lag_callback=print, tags=["a"])
    settings = first.settings()
    assert settings is not None
    assert token not in str(settings)
    again = NeptuneTracker(**settings)
    assert (again.api_token, again.run_arguments) == (first.api_token, first.run_arguments)
    elsewhere = NeptuneTracker(**{**settings, "kept": "of another process"})
    assert (elsewhere.api_token, elsewhere.run_arguments) == (None, {"tags": ["a"]})
