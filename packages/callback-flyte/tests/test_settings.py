"""Arguments of the callback, and where it can be constructed."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import flytekit
import pytest
from attempts import Attempt, attempt, decks
from flytekit.bin.entrypoint import setup_execution

from callback_contract.testing import missing
from callback_core import (
    NotConfigured,
    get_reporting_integration_callbacks,
    make_reporting_integration_callbacks,
)
from callback_flyte import FlyteCallback, restored_checkpoint
from trainer_torch.testing import small_trainer


def test_the_arguments_are_those_of_transformers() -> None:
    parameters = list(inspect.signature(FlyteCallback).parameters.values())[:2]
    assert [(p.name, p.default) for p in parameters] == [
        ("save_log_history", True),
        ("sync_checkpoints", True),
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"save_log_history": "yes"}, "save_log_history .*'yes'.*True, False"),
        ({"sync_checkpoints": 1}, "sync_checkpoints .*1.*True, False"),
        ({"flush_limit": -1}, "flush_limit .*-1.*seconds"),
    ],
)
def test_an_error_names_the_invalid_argument_its_value_and_the_choices(
    running: Attempt, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FlyteCallback(**wrong)


def test_outside_a_task_the_error_names_the_decorator() -> None:
    for make in (FlyteCallback, restored_checkpoint):
        with pytest.raises(NotConfigured, match=f"{make.__name__} .*@task"):
            make()


def test_all_skips_the_callback_outside_a_task_with_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not made_for_all()
    assert any("FlyteCallback" in m and "@task" in m for m in caplog.messages)
    with setup_execution(raw_output_data_prefix=str(tmp_path)):
        assert not made_for_all()
        assert any("sync_checkpoints=False" in message for message in caplog.messages)
    with attempt(tmp_path / "flyte", 1):
        assert [type(callback) for callback in made_for_all()] == [FlyteCallback]
    with pytest.raises(NotConfigured, match="@task"):
        make_reporting_integration_callbacks("flyte")


def made_for_all() -> list[Any]:
    """Return the Flyte callbacks that `report_to="all"` selects."""
    made = make_reporting_integration_callbacks("all")
    return [callback for callback in made if isinstance(callback, FlyteCallback)]


def test_in_the_body_of_a_workflow_the_error_names_the_decorator() -> None:
    @flytekit.dynamic
    def inside() -> str:
        return type(FlyteCallback()).__name__

    assert inside() == "FlyteCallback"

    @flytekit.workflow
    def body() -> None:
        FlyteCallback()

    with pytest.raises(NotConfigured, match="@task"):
        body()


def test_a_task_called_as_a_function_has_a_deck_and_checkpoints(
    tmp_path: Path,
) -> None:
    names: list[str] = []

    @flytekit.task(enable_deck=True)
    def train(folder: str) -> int:
        trainer = small_trainer(Path(folder), FlyteCallback(), save_strategy="epoch")
        trainer.train(resume_from_checkpoint=restored_checkpoint())
        names.extend(decks())
        return trainer.state.global_step

    assert train(folder=str(tmp_path)) == 12
    assert "Log History" in names


def test_without_sync_checkpoints_nothing_is_stored(tmp_path: Path, running: Attempt) -> None:
    callback = FlyteCallback(sync_checkpoints=False)
    small_trainer(tmp_path / "run", callback, save_strategy="epoch").train()
    assert not running.kept.exists()


def test_without_a_checkpoint_location_the_error_names_the_argument(tmp_path: Path) -> None:
    with setup_execution(raw_output_data_prefix=str(tmp_path)):
        with pytest.raises(NotConfigured, match="sync_checkpoints=False"):
            FlyteCallback()
        FlyteCallback(sync_checkpoints=False)


def test_the_entry_point_is_registered() -> None:
    [point] = entry_points(group="callback_core.integrations", name="flyte")
    assert point.load() is FlyteCallback
    assert get_reporting_integration_callbacks("flyte") == [FlyteCallback]


def test_without_its_sdk_the_callback_is_refused_when_it_is_made() -> None:
    with missing("flytekit"), pytest.raises(ModuleNotFoundError) as refused:
        FlyteCallback()
    assert refused.value.name == "flytekit"
    assert "FlyteCallback" in str(refused.value)
    assert "pip install flytekit" in str(refused.value)
