from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate.tracking
import pytest
from recording import new_accelerator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import callback_mlflow
import callback_tensorboard
from callback_accelerate import CallbackTracker, make_trackers, register_trackers
from callback_core import get_available_reporting_integrations
from callback_mlflow import MLflowCallback
from callback_tensorboard import TensorBoardCallback

INSTALLED = (callback_mlflow, callback_tensorboard)
"""Packages that are found by their entry points."""


registers = pytest.mark.skipif(
    not hasattr(accelerate.tracking, "register_tracker_class"),
    reason="this Accelerate cannot register trackers",
)


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)


def made(name: str, logging_dir: Path, **settings: Any) -> CallbackTracker:
    """Return a tracker as `init_trackers` makes it, before it is started."""
    register_trackers()
    return accelerate.tracking.LOGGER_TYPE_TO_CLASS[name]("project", str(logging_dir), **settings)


@registers
def test_each_installed_tracker_has_a_name() -> None:
    expected = [f"callback_{name}" for name in get_available_reporting_integrations()]
    assert register_trackers() == expected == register_trackers()


@registers
def test_log_with_names_a_tracker(tmp_path: Path) -> None:
    register_trackers()
    accelerator = new_accelerator("callback_tensorboard", tmp_path)
    accelerator.init_trackers("project")
    accelerator.log({"loss": 0.5}, step=3)
    accelerator.end_training()
    (written,) = (tmp_path / "runs").iterdir()
    (event,) = EventAccumulator(str(written)).Reload().Scalars("train/loss")
    assert (event.step, event.value) == (3, 0.5)


@registers
def test_trackers_that_are_made_together_share_a_run_that_one_of_them_names(
    tmp_path: Path,
) -> None:
    mlflow = made("callback_mlflow", tmp_path)
    tensorboard = made("callback_tensorboard", tmp_path, run_name="one")
    assert mlflow.run is tensorboard.run
    assert mlflow.run.run_name == "one"


@registers
def test_the_next_init_trackers_is_another_run(tmp_path: Path) -> None:
    register_trackers()
    runs = []
    for _ in range(2):
        accelerator = new_accelerator("callback_tensorboard", tmp_path)
        accelerator.init_trackers("project")
        runs += [tracker.run for tracker in accelerator.trackers]
    assert runs[0] is not runs[1]
    for run in runs:
        run.end()


@registers
def test_the_project_is_what_the_tracker_calls_it_and_arguments_reach_the_callback(
    tmp_path: Path,
) -> None:
    tracker = made("callback_mlflow", tmp_path, tags={"team": "ocr"}).tracker.tracker
    assert (tracker.experiment_name, tracker.tags) == ("project", {"team": "ocr"})


@registers
def test_an_argument_names_the_project_before_accelerate_does(tmp_path: Path) -> None:
    tracker = made("callback_mlflow", tmp_path, experiment_name="own").tracker.tracker
    assert tracker.experiment_name == "own"


def test_objects_have_the_names_that_registered_trackers_have(tmp_path: Path) -> None:
    trackers = make_trackers([MLflowCallback(), TensorBoardCallback()], str(tmp_path))
    assert [tracker.name for tracker in trackers] == ["callback_mlflow", "callback_tensorboard"]


def test_callbacks_may_be_classes(tmp_path: Path) -> None:
    (tracker,) = make_trackers([TensorBoardCallback], str(tmp_path))
    assert isinstance(tracker.tracker, TensorBoardCallback)


def test_an_accelerate_that_cannot_register_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(accelerate.tracking, "register_tracker_class", raising=False)
    with pytest.raises(RuntimeError, match="make_trackers"):
        register_trackers()
