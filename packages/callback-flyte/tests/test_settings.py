"""Arguments, and where the callback can be made."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import flytekit
import pytest
from attempts import Attempt, attempt, decks
from flytekit.bin.entrypoint import setup_execution

from callback_core import (
    NotConfigured,
    get_reporting_integration_callbacks,
    make_reporting_integration_callbacks,
)
from callback_flyte import FlyteCallback, restored_checkpoint
from trainer_torch.testing import small_trainer


def test_the_arguments_are_those_of_the_page() -> None:
    parameters = list(inspect.signature(FlyteCallback).parameters.values())[:2]
    assert [(p.name, p.default) for p in parameters] == [
        ("save_log_history", True),
        ("sync_checkpoints", True),
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"save_log_history": "yes"}, "save_log_history is 'yes', it must be one of: True, False"),
        ({"sync_checkpoints": 1}, "sync_checkpoints is 1, it must be one of: True, False"),
        ({"flush_limit": -1}, "flush_limit is -1, it must be seconds, 0 or more"),
    ],
)
def test_a_wrong_argument_is_refused_with_what_it_must_be(
    running: Attempt, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FlyteCallback(**wrong)


def test_outside_of_a_task_it_says_where_it_works() -> None:
    for make in (FlyteCallback, restored_checkpoint):
        with pytest.raises(NotConfigured, match=r"works only within a Flyte task.*@task"):
            make()


def test_report_to_all_does_without_it_where_it_has_nothing_to_keep_a_training_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not made_for_all()
    assert "FlyteCallback is not used: FlyteCallback works only within a Flyte task" in caplog.text
    with setup_execution(raw_output_data_prefix=str(tmp_path)):
        assert not made_for_all()
        assert "FlyteCallback is not used: FlyteCallback: Flyte has given this task" in caplog.text
    with attempt(tmp_path / "flyte", 1):
        assert [type(callback) for callback in made_for_all()] == [FlyteCallback]
    with pytest.raises(NotConfigured, match="works only within a Flyte task"):
        make_reporting_integration_callbacks("flyte")


def made_for_all() -> list[Any]:
    """Return the callbacks of Flyte's that `report_to="all"` makes."""
    made = make_reporting_integration_callbacks("all")
    return [callback for callback in made if isinstance(callback, FlyteCallback)]


def test_in_the_body_of_a_workflow_it_says_where_it_works() -> None:
    @flytekit.dynamic
    def inside() -> str:
        return type(FlyteCallback()).__name__

    assert inside() == "FlyteCallback"

    @flytekit.workflow
    def body() -> None:
        FlyteCallback()

    with pytest.raises(NotConfigured, match="works only within a Flyte task"):
        body()


def test_in_a_task_that_is_called_as_a_function_a_training_has_deck_and_checkpoints(
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


def test_nothing_is_kept_where_that_is_not_wanted(tmp_path: Path, running: Attempt) -> None:
    callback = FlyteCallback(sync_checkpoints=False)
    small_trainer(tmp_path / "run", callback, save_strategy="epoch").train()
    assert not running.kept.exists()


def test_a_task_without_a_place_for_checkpoints_is_told_what_to_do(tmp_path: Path) -> None:
    with setup_execution(raw_output_data_prefix=str(tmp_path)):
        with pytest.raises(NotConfigured, match="sync_checkpoints=False"):
            FlyteCallback()
        FlyteCallback(sync_checkpoints=False)


def test_report_to_finds_it() -> None:
    [point] = entry_points(group="callback_core.integrations", name="flyte")
    assert point.load() is FlyteCallback
    assert get_reporting_integration_callbacks("flyte") == [FlyteCallback]
