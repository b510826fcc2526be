"""What the callback is told, and what happens where the SDK is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from processes import BY_HAND, python
from trainings import trainer

from callback_core import get_available_reporting_integrations
from callback_wandb import WandbCallback, WandbTracker


@pytest.mark.parametrize(
    ("value", "meant"),
    [("end", "end"), ("Checkpoint", "checkpoint"), ("false", "false")]
    + [(value, "end") for value in ("1", "on", "Yes", "TRUE")]
    + [(value, "false") for value in ("", "0", "off", "No", "FALSE")],
)
def test_when_models_are_kept(value: str, meant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_LOG_MODEL", value)
    tracker = WandbCallback().tracker
    assert tracker.log_model == meant
    assert tracker.takes_checkpoints == (meant == "checkpoint")


@pytest.mark.parametrize("value", ["gradients", "parameters", "All", "false", "0", ""])
def test_what_is_watched(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_WATCH", value)
    assert WandbTracker().watch == (value.lower() if len(value) > 1 else "false")


def test_what_is_given_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert WandbTracker().project == "huggingface"
    monkeypatch.setenv("WANDB_PROJECT", "of the environment")
    monkeypatch.setenv("WANDB_LOG_MODEL", "end")
    monkeypatch.setenv("WANDB_WATCH", "all")
    tracker = WandbCallback().tracker
    assert (tracker.project, tracker.log_model, tracker.watch) == (
        "of the environment",
        "end",
        "all",
    )
    tracker = WandbCallback(project="given", log_model=False, watch="gradients").tracker
    assert (tracker.project, tracker.log_model, tracker.watch) == ("given", "false", "gradients")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("WANDB_LOG_MODEL", "all", "end, checkpoint, false"),
        ("WANDB_WATCH", "true", "gradients, parameters, all, false"),
        ("WANDB_PROJECT", "team/project", "without /"),
        ("WANDB_DISABLED", "please", "1, ON, YES, TRUE, 0, OFF, NO, FALSE"),
        ("WANDB_MODE", "of-line", "online, offline"),
    ],
)
def test_a_wrong_variable_is_refused_with_its_name_its_value_and_the_choices(
    variable: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable) as refused:
        WandbCallback()
    assert says in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("project", ""),
        ("project", 7),
        ("log_model", "always"),
        ("watch", True),
        ("delivery", "later"),
        ("open_limit", -1),
    ],
)
def test_a_wrong_argument_is_refused_with_its_name_and_value(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument) as refused:
        WandbCallback(**{argument: value})
    assert repr(value) in str(refused.value)


def test_another_process_cannot_watch_the_model() -> None:
    with pytest.raises(ValueError, match=r"WANDB_WATCH.*'all'.*thread, inline"):
        WandbCallback(watch="all", delivery="process")


def test_settings_make_an_equal_tracker() -> None:
    settings = WandbTracker(project="p", log_model="end", facts={"a": 1}).settings()
    assert settings is not None
    assert WandbTracker(**settings).settings() == settings


@pytest.mark.parametrize(("variable", "value"), [("DISABLED", "TRUE"), ("MODE", "disabled")])
def test_a_disabled_integration_does_nothing(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"WANDB_{variable}", value)
    callback = WandbCallback(log_model="checkpoint", watch="all")
    made = trainer(tmp_path / "out", callback, save_strategy="epoch")
    made.train()
    made.evaluate()
    assert not (tmp_path / "out" / "tracking").exists()


def test_it_is_found_by_its_name() -> None:
    assert "wandb" in get_available_reporting_integrations()


def test_importing_it_does_not_import_the_sdk() -> None:
    code = "import sys, callback_wandb; callback_wandb.WandbCallback(); print(*sys.modules)"
    done = python("-c", code)
    modules = done.stdout.split()
    assert "callback_wandb" in modules, done.stderr
    assert not {"wandb", "torch", "numpy"} & {*modules}


def test_a_missing_sdk_is_said_with_what_to_install_and_training_goes_on(tmp_path: Path) -> None:
    done = python(BY_HAND, str(tmp_path / "out"), "8", "missing")
    assert "trained 8 steps" in done.stdout, done.stderr
    assert "pip install wandb" in done.stderr
