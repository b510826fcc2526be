"""What the callback is told, and what happens where the SDK is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from by_hand import BY_HAND
from recorded import runs, the_run

from callback_contract.testing import run_python
from callback_core import get_available_reporting_integrations
from callback_wandb import WandbCallback, WandbTracker
from trainer_torch.testing import small_trainer


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
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


@pytest.mark.parametrize(("argument", "value"), [("delivery", "later"), ("open_limit", -1)])
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

    class Own(WandbCallback):
        def setup(self, *args: Any, **kwargs: Any) -> None:
            raise AssertionError("it is set up")

    made = small_trainer(tmp_path / "out", Own(log_model="checkpoint"), save_strategy="epoch")
    made.train()
    made.evaluate()
    assert not (tmp_path / "out" / "tracking").exists()
    assert runs(tmp_path / "out") == []


def test_the_project_of_the_environment_is_that_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "größer")
    small_trainer(tmp_path / "out", WandbCallback).train()
    assert the_run(tmp_path / "out").project == "größer"


def test_it_is_found_by_its_name() -> None:
    assert "wandb" in get_available_reporting_integrations()


def test_importing_it_does_not_import_the_sdk() -> None:
    code = "import sys, callback_wandb; callback_wandb.WandbCallback(); print(*sys.modules)"
    done = run_python("-c", code)
    modules = done.stdout.split()
    assert "callback_wandb" in modules, done.stderr
    assert not {"wandb", "torch", "numpy"} & {*modules}


def test_a_missing_sdk_is_said_with_what_to_install_and_training_goes_on(tmp_path: Path) -> None:
    done = run_python(BY_HAND, str(tmp_path / "out"), "missing")
    assert "trained 8 steps" in done.stdout, done.stderr
    assert "pip install wandb" in done.stderr
