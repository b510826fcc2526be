"""Settings of the callback, and training without the SDK installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recorded import runs, the_run

from callback_contract.testing import missing, run_python
from callback_core import get_available_reporting_integrations
from callback_wandb import WandbCallback, WandbTracker
from trainer_torch.testing import Trial, small_trainer


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("WANDB_DISABLED", "please", "1, ON, YES, TRUE, 0, OFF, NO, FALSE"),
        ("WANDB_MODE", "of-line", "online, offline"),
    ],
)
def test_an_error_names_the_invalid_variable_its_value_and_the_choices(
    variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=variable) as refused:
        WandbCallback()
    assert expected in str(refused.value)
    assert repr(value) in str(refused.value)


@pytest.mark.parametrize(("argument", "value"), [("delivery", "later"), ("open_limit", -1)])
def test_an_error_names_the_invalid_argument_and_its_value(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument) as refused:
        WandbCallback(**{argument: value})
    assert repr(value) in str(refused.value)


def test_a_delivery_process_cannot_watch_the_model() -> None:
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

    class Own(WandbCallback):
        def setup(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("it is set up")

    made = small_trainer(tmp_path / "out", Own(log_model="checkpoint"), save_strategy="epoch")
    made.train()
    made.evaluate()
    assert not (tmp_path / "out" / "tracking").exists()
    assert runs(tmp_path / "out") == []


def test_the_environment_names_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "größer")
    small_trainer(tmp_path / "out", WandbCallback).train()
    assert the_run(tmp_path / "out").project == "größer"


def test_the_entry_point_is_registered() -> None:
    assert "wandb" in get_available_reporting_integrations()


def test_importing_and_constructing_the_callback_imports_no_sdk() -> None:
    code = "import sys, callback_wandb; callback_wandb.WandbCallback(); print(*sys.modules)"
    done = run_python("-c", code)
    modules = done.stdout.split()
    assert "callback_wandb" in modules, done.stderr
    assert not {"wandb", "torch", "numpy"} & {*modules}


def test_without_its_sdk_the_callback_is_refused_when_it_is_made() -> None:
    with missing("wandb"), pytest.raises(ModuleNotFoundError) as refused:
        WandbCallback()
    assert refused.value.name == "wandb"
    assert "WandbCallback" in str(refused.value)
    assert "pip install wandb" in str(refused.value)


def test_a_callback_that_is_switched_off_needs_no_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DISABLED", "true")
    with missing("wandb"):
        assert WandbCallback().tracker.disabled


@pytest.mark.parametrize("length", [128, 129, 500])
def test_names_are_cut_to_what_the_server_takes(
    length: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_RUN_GROUP", "g" * length)
    name = "ä" * length
    small_trainer(tmp_path / "out", WandbCallback, run_name=name).train()
    run = the_run(tmp_path / "out")
    assert (len(run.name), len(run.group)) == (128, 128)
    assert name.startswith(run.name[:100])
    ours = [record for record in caplog.records if record.name.startswith("callback_wandb")]
    warned = [record.getMessage() for record in ours]
    assert [sum(what in line for line in warned) for what in ("run_name", "WANDB_RUN_GROUP")] == (
        [0, 0] if length == 128 else [1, 1]
    )


def test_the_groups_of_two_searches_with_long_names_differ(tmp_path: Path) -> None:
    for end in ("a", "b"):
        trial = Trial("trial-1", {})
        small_trainer(tmp_path / end, trial, WandbCallback, run_name="s" * 150 + end).train()
    first, second = the_run(tmp_path / "a"), the_run(tmp_path / "b")
    assert first.group != second.group
    assert {len(first.group), len(second.group)} == {128}


@pytest.mark.parametrize("tags", ["t" * 65, "a," + "t" * 65, "a,,b"])
def test_tags_that_the_service_refuses_are_refused_at_once(
    tags: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_TAGS", tags)
    with pytest.raises(ValueError, match="WANDB_TAGS"):
        WandbCallback()


@pytest.mark.parametrize("tags", ["t" * 64, "a, b c,d", " a"])
def test_tags_that_the_service_takes_are_taken(tags: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_TAGS", tags)
    WandbCallback()
